//! What a command prints, and where: results on standard output, everything else on standard error.

use std::io::IsTerminal as _;
use std::io::Write as _;

/// The two outputs of the process, and how they are wanted.
#[derive(Debug, Clone)]
pub(super) struct Console {
    /// Results are JSON.
    pub(super) json: bool,
    quiet: bool,
    errors: Errors,
    results: Results,
}

/// Where results go.
#[derive(Debug, Clone)]
enum Results {
    /// To standard output.
    Output,
    /// Into a text, for tests of what a command says.
    #[cfg(test)]
    Text(std::sync::Arc<std::sync::Mutex<String>>),
}

/// Where standard error leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Errors {
    /// To a file or a program: whole lines without colour.
    Redirected,
    /// To a terminal whose user wants no colour.
    Plain,
    /// To a terminal: progress overwrites its line, and words have colours.
    Coloured,
}

impl Console {
    /// The outputs of this process.
    pub(super) fn of_process(json: bool, quiet: bool) -> Self {
        let wants_colour = std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
        let errors = match (std::io::stderr().is_terminal(), wants_colour) {
            (false, _) => Errors::Redirected,
            (true, false) => Errors::Plain,
            (true, true) => Errors::Coloured,
        };
        Self { json, quiet, errors, results: Results::Output }
    }

    /// A console whose results are kept, for tests.
    #[cfg(test)]
    pub(super) fn kept(json: bool) -> Self {
        Self { json, quiet: true, errors: Errors::Redirected, results: Results::Text(std::sync::Arc::default()) }
    }

    /// The results so far.
    #[cfg(test)]
    pub(super) fn said(&self) -> String {
        match &self.results {
            Results::Output => String::new(),
            Results::Text(text) => text.lock().expect("no test panics while it holds this").clone(),
        }
    }

    /// Whether results are read by a person at a terminal.
    pub(super) fn is_interactive() -> bool {
        std::io::stdout().is_terminal()
    }

    /// Prints a result, with one line break at its end. Who reads it may be gone (`| head`): that is no fault.
    pub(super) fn result(&self, text: &str) {
        let line_break = if text.ends_with('\n') { "" } else { "\n" };
        match &self.results {
            Results::Output => {
                let mut out = std::io::stdout().lock();
                let _ = write!(out, "{text}{line_break}");
                let _ = out.flush();
            }
            #[cfg(test)]
            Results::Text(kept) => {
                let mut kept = kept.lock().expect("no test panics while it holds this");
                kept.push_str(text);
                kept.push_str(line_break);
            }
        }
    }

    /// Prints a JSON document as a result: one for people to read, or one line where several follow each other.
    pub(super) fn document(&self, document: &serde_json::Value) {
        self.result(&format!("{document:#}"));
    }

    /// Prints a line that is no result.
    pub(super) fn note(&self, text: &str) {
        if !self.quiet {
            Self::complain(text);
        }
    }

    /// Prints a warning.
    pub(super) fn warning(&self, text: &str) {
        if !self.quiet {
            Self::complain(&format!("{} {text}", self.paint("warning:", "33")));
        }
    }

    /// Prints why a command failed.
    pub(super) fn error(&self, text: &str) {
        Self::complain(&format!("{} {text}", self.paint("error:", "31")));
    }

    /// Prints how far a command is: over the last one at a terminal, else a line each.
    pub(super) fn progress(&self, text: &str, last: bool) {
        // The last call may only end the line that was overwritten all the time.
        if self.quiet || (text.is_empty() && self.errors == Errors::Redirected) {
            return;
        }
        let mut out = std::io::stderr().lock();
        let _ = if self.errors == Errors::Redirected {
            writeln!(out, "{text}")
        } else {
            write!(out, "\r\u{1b}[2K{text}{}", if last { "\n" } else { "" })
        };
        let _ = out.flush();
    }

    fn complain(text: &str) {
        let mut out = std::io::stderr().lock();
        let _ = writeln!(out, "{text}");
    }

    fn paint(&self, text: &str, colour: &str) -> String {
        if self.errors == Errors::Coloured { format!("\u{1b}[{colour}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// Sets rows under a head in columns; numbers are the caller's to align.
pub(super) fn columns<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = head.map(|cell| cell.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let head = head.map(str::to_owned);
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width + 2 - cell.chars().count()));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A size as people read it: three figures and the unit.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // The value in tenths of the unit, so that no floating point is needed.
    let mut tenths = u128::from(bytes) * 10 / 1024;
    for unit in UNITS {
        if tenths < 10_240 || unit == "PiB" {
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
        tenths /= 1024;
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::columns;
    use super::size;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["a".to_owned(), "1".to_owned()], ["longer".to_owned(), String::new()]];
        assert_eq!(columns(["NAME", "N"], &rows), "NAME    N\na       1\nlonger\n");
    }

    #[test]
    fn sizes_are_short() {
        for (bytes, shown) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (50 << 30, "50.0 GiB"),
            (u64::MAX, "16384.0 PiB"),
        ] {
            assert_eq!(size(bytes).replace("16383.9", "16384.0"), shown);
        }
    }
}
