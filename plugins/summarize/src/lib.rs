//! Summarises a document of any length with a model of any size.
//!
//! A document that does not fit into the model's context is read part by part. The summaries of the parts make a shorter
//! document, which is read in the same way, until one is left that fits: its summary is what the person gets.

mod cut;
mod wish;

use locara::{App, Ask, Budget, Error, Failure, Message, Output, Session};

use cut::cut;
use wish::Wish;

/// Summarises the input into the output. `--words N` and `--focus TOPIC` say what it shall be like.
#[locara::app]
pub async fn summarize(app: &mut App) -> Result<(), Failure> {
    let wish = Wish::from_args(&app.args)?;
    let mut text = app.input.text().await?;
    if text.trim().is_empty() {
        return Err(Failure::new(
            "there is nothing to summarise: the input is empty; try `locara run summarize --input FILE`",
        ));
    }
    let mut reader = Reader::new(wish)?;
    while !reader.fits(&text).await? {
        text = reader.condense(&text).await?;
    }
    reader.conclude(&text, &mut app.output).await
}

/// Reads one part at a time, in a conversation that begins anew with each.
struct Reader {
    session: Session,
    wish: Wish,
    /// Tokens that an answer may have: what was wished for, but never so much that little is left for the text.
    answer: u32,
}

impl Reader {
    fn new(wish: Wish) -> Result<Self, Error> {
        let session = Session::open("default")?;
        let answer = wish.answer_tokens().min(session.context_tokens() / 3);
        Ok(Self { session, wish, answer })
    }

    /// Whether the text can be summarised in one go, now.
    async fn fits(&self, text: &str) -> Result<bool, Error> {
        Ok(self.tokens(&self.wish.ask_for_summary(text)).await? <= self.room())
    }

    /// Replaces each part of the text that fits by its summary.
    async fn condense(&mut self, text: &str) -> Result<String, Failure> {
        let mut summaries = Vec::new();
        let mut unread = vec![text];
        while let Some(part) = unread.pop() {
            let question = self.wish.ask_for_part(part);
            let (tokens, room) = (self.tokens(&question).await?, self.room());
            if tokens > room {
                let (first, second) = cut(part, tokens.div_ceil(room.max(1))).ok_or_else(|| self.too_small())?;
                unread.extend([second, first]);
                continue;
            }
            let left: usize = part.len() + unread.iter().map(|part| part.len()).sum::<usize>();
            let read = 1.0 - left as f32 / text.len() as f32;
            locara::progress(Some(read), format!("reading part {}", summaries.len() + 1));

            let summary = self.ask(question).text().await?;
            self.session.rewind(0)?;
            summaries.push(summary.trim().to_owned());
        }
        let parts = summaries.len();
        summaries.retain(|summary| !summary.is_empty());
        let condensed = summaries.join("\n\n");
        locara::info!("{parts} parts: {} bytes became {}", text.len(), condensed.len());
        if condensed.is_empty() || condensed.len() >= text.len() {
            return Err(no_shorter(text, &condensed));
        }
        Ok(condensed)
    }

    /// Streams the summary that the person asked for.
    async fn conclude(&mut self, text: &str, output: &mut Output) -> Result<(), Failure> {
        locara::progress(None, "writing the summary");
        let reply = self.ask(self.wish.ask_for_summary(text)).stream().write_to(output).await?;
        if reply.text.trim().is_empty() {
            return Err(Failure::new("the model had nothing to say; try another model for the role `default`"));
        }
        output.write("\n").await?;
        Ok(())
    }

    /// The likeliest answer: the same document has the same summary.
    fn ask(&mut self, question: String) -> Ask<'_> {
        self.session.ask(question).max_tokens(self.answer).temperature(0.0)
    }

    async fn tokens(&self, question: &str) -> Result<u32, Error> {
        self.session.count_tokens(&[Message::user(question)]).await
    }

    /// Tokens that a question may have. Half as many while memory is tight: less is computed and held at a time.
    fn room(&self) -> u32 {
        let room = self.session.context_tokens() - self.answer;
        if Budget::current().pressure.is_tight() { room / 2 } else { room }
    }

    fn too_small(&self) -> Failure {
        let context = self.session.context_tokens();
        Failure::new(format_args!(
            "a context of {context} tokens is too small to summarise anything; give the role `default` a larger one"
        ))
    }
}

fn no_shorter(text: &str, condensed: &str) -> Failure {
    let (before, after) = (text.len(), condensed.len());
    Failure::new(format_args!(
        "the model does not make the text shorter ({before} bytes became {after}); try another model for the role `default`"
    ))
}
