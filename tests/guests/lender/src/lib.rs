//! An app that gives back what it is asked for, as the SDK makes it: it holds conversations in a [`Pool`] and lets them go,
//! the oldest first. `N` as its argument: how many.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use locara::{App, Failure, Pool, Session};

/// What a conversation is worth, as this app counts.
const WORTH: u64 = 1000;

/// See the module.
#[locara::app]
pub async fn lender(app: &mut App) -> Result<(), Failure> {
    let conversations = app.args.first().and_then(|n| n.parse::<u64>().ok()).unwrap_or(1);
    let kept: Rc<RefCell<VecDeque<Session>>> = Rc::default();
    let pool = Pool::new("conversations", 5, {
        let kept = Rc::clone(&kept);
        move |wanted| {
            let mut kept = kept.borrow_mut();
            let go = usize::try_from(wanted.div_ceil(WORTH)).unwrap_or(usize::MAX).min(kept.len());
            kept.drain(..go).count() as u64 * WORTH
        }
    });
    for n in 1..=conversations {
        let mut session = Session::open("default")?;
        session.ask("Count.").max_tokens(10).await?;
        kept.borrow_mut().push_back(session);
        pool.set_reclaimable(n * WORTH);
    }
    app.output.write("lent").await?;
    // It goes on until its input ends, and says what it hears in between.
    while let Some(chunk) = app.input.chunk().await? {
        app.output.write_bytes(chunk).await?;
    }
    Ok(())
}
