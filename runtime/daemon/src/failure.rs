//! What a person reads when a command fails: what failed, on what, why, and the next step.

use std::{error::Error, fmt};

use miette::Diagnostic;

use crate::exit::Exit;

/// The end of a command that did not succeed.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
    help: Option<String>,
    source: Option<Box<dyn Error + Send + Sync>>,
    report: Option<Box<dyn Diagnostic + Send + Sync>>,
}

impl Failure {
    /// `message` says what failed and on what.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), help: None, source: None, report: None }
    }

    /// The next step.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The next step, where there is one.
    pub(crate) fn advice(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// Why; its chain is printed below the message.
    pub(crate) fn because(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// A report that has its own message, places and help; it is printed instead.
    pub(crate) fn report(exit: Exit, report: impl Diagnostic + Send + Sync + 'static) -> Self {
        let message = report.to_string();
        Self { exit, message, help: None, source: None, report: Some(Box::new(report)) }
    }

    /// The exit code.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// As JSON, for `--json`.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        let causes: Vec<_> = chain(self).skip(1).map(ToString::to_string).collect();
        serde_json::json!({"error": {"code": self.exit.code(), "message": self.message, "causes": causes, "help": self.help}})
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}

impl Diagnostic for Failure {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        match &self.report {
            Some(report) => report.help(),
            None => self.help.as_ref().map(|help| Box::new(help) as _),
        }
    }
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.report.as_ref().and_then(|report| report.code())
    }
    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        self.report.as_ref().and_then(|report| report.related())
    }
    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        self.report.as_ref().and_then(|report| report.source_code())
    }
    fn labels(&self) -> Option<Box<dyn Iterator<Item = miette::LabeledSpan> + '_>> {
        self.report.as_ref().and_then(|report| report.labels())
    }
}

/// An error and its causes, outermost first.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

/// An error and its causes in one line.
pub(crate) fn one_line(error: &(dyn Error + 'static)) -> String {
    chain(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Reading or writing `what` failed.
pub(crate) fn io(what: &str, error: std::io::Error) -> Failure {
    // fs-err names the path in the error itself.
    Failure::new(Exit::Failure, format!("cannot {what}")).because(error)
}
