//! Tables and paragraphs in plain ASCII, the same on a serial line and in a file.

/// Rows with a heading; columns as wide as their widest cell.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(heading: &[&str]) -> Self {
        Self { rows: vec![heading.iter().map(|cell| (*cell).to_owned()).collect()] }
    }

    pub(crate) fn row(&mut self, cells: &[&str]) {
        self.rows.push(cells.iter().map(|cell| plain(cell)).collect());
    }

    /// Lines, each ended; no blanks at line ends.
    pub(crate) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells: Vec<String> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            format!("{}\n", cells.join("  ").trim_end())
        };
        self.rows.iter().map(line).collect()
    }
}

/// Text that came from elsewhere (host names, log lines) without what could steer a terminal or make a line
/// read otherwise than it is (Unicode's invisible and direction characters).
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || is_invisible(c) { ' ' } else { c }).collect()
}

fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// The same for text of several lines.
pub(crate) fn plain_lines(text: &str) -> String {
    text.lines().map(|line| format!("{}\n", plain(&line.replace('\t', "    ")).trim_end())).collect()
}

/// `42 s`, `17 min`, `5 h 03 min`, `12 d 04 h`
pub(crate) fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, _, _) => format!("{hours} h {:02} min", minutes % 60),
        _ => format!("{days} d {:02} h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_have_no_tail() {
        let mut table = Table::new(&["NAME", "STATE"]);
        table.row(&["netd", "running"]);
        table.row(&["d\x1b[2J", ""]);
        assert_eq!(table.render(), "NAME   STATE\nnetd   running\nd [2J\n");
    }

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(plain("a\x1b]0;x\x07b\u{9b}2Jc\u{202e}d\u{200b}ä"), "a ]0;x b 2Jc d ä");
        assert_eq!(plain_lines("a\r\nb\tc\x1b[0m\n"), "a\nb    c [0m\n");
    }

    #[test]
    fn durations_read_well() {
        let check = |seconds, expect: &str| assert_eq!(duration(seconds), expect);
        check(59, "59 s");
        check(60, "1 min");
        check(3 * 3600 + 61, "3 h 01 min");
        check(90_000, "1 d 01 h");
    }
}
