//! A table that prints as text, Markdown or HTML.
//!
//! Invariant: the three show the same cells; the first column names its row, and every row has a cell per column.

use std::fmt::Write;

/// A table of finished texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// What it shows, a sentence without full stop.
    pub caption: String,
    /// Headings, and whether the column is of numbers (set flush right).
    pub columns: Vec<(String, bool)>,
    /// Cells by row.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows. A heading that begins with `>` is of a column of numbers.
    #[must_use]
    pub fn new(caption: impl Into<String>, headings: &[&str]) -> Self {
        let column = |heading: &&str| (heading.trim_start_matches('>').to_owned(), heading.starts_with('>'));
        Self { caption: caption.into(), columns: headings.iter().map(column).collect(), rows: Vec::new() }
    }

    /// Adds a row; missing cells print as unknown.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let mut cells: Vec<String> = cells.into_iter().collect();
        cells.resize(self.columns.len(), super::words::UNKNOWN.to_owned());
        self.rows.push(cells);
    }

    /// Aligned text, each line indented by two spaces, two spaces between columns.
    #[must_use]
    pub fn text(&self) -> String {
        let length = |text: &str| text.chars().count();
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|i| self.rows.iter().map(|row| length(&row[i])).chain([length(&self.columns[i].0)]).max().unwrap_or(0))
            .collect();
        let headings: Vec<String> = self.columns.iter().map(|(heading, _)| heading.clone()).collect();
        let mut text = String::new();
        for row in [&headings].into_iter().chain(&self.rows) {
            let mut line = String::new();
            for ((cell, width), (_, number)) in row.iter().zip(&widths).zip(&self.columns) {
                let padding = " ".repeat(width - length(cell));
                let (before, after) = if *number { (padding.as_str(), "") } else { ("", padding.as_str()) };
                let _ = write!(line, "  {before}{cell}{after}");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    /// A Markdown table without its caption.
    #[must_use]
    pub fn markdown(&self) -> String {
        let line = |cells: &[String]| {
            let cells: Vec<String> = cells.iter().map(|cell| super::markdown::escape(cell)).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let headings: Vec<String> = self.columns.iter().map(|(heading, _)| heading.clone()).collect();
        let rule: Vec<&str> = self.columns.iter().map(|(_, number)| if *number { "---:" } else { "---" }).collect();
        let rows: String = self.rows.iter().map(|row| line(row)).collect();
        format!("{}| {} |\n{rows}", line(&headings), rule.join(" | "))
    }

    /// An HTML table: caption, column and row headers with their scope, in a box that scrolls by itself.
    #[must_use]
    pub fn html(&self) -> String {
        self.html_by(&[])
    }

    /// As [`Table::html`]; rows and columns headed by one of `names` say whose they are: name, slot of the allocator.
    #[must_use]
    pub fn html_by(&self, names: &[(String, usize)]) -> String {
        let escape = super::html::escape;
        let class = |number: bool| if number { " class=\"n\"" } else { "" };
        let series = |text: &str| {
            let known = names.iter().find(|(name, _)| name == text);
            known.map_or(String::new(), |(_, slot)| format!(" data-series=\"{slot}\""))
        };
        let columns: Vec<String> = self.columns.iter().map(|(heading, _)| series(heading)).collect();
        let mut html = String::from("<div class=\"table\"><table>\n");
        let _ = writeln!(html, "<caption>{}</caption>", escape(&self.caption));
        html.push_str("<thead><tr>");
        for ((heading, number), own) in self.columns.iter().zip(&columns) {
            let _ = write!(html, "<th scope=\"col\"{}{own}>{}</th>", class(*number), escape(heading));
        }
        html.push_str("</tr></thead>\n<tbody>\n");
        for row in &self.rows {
            let _ = write!(html, "<tr{}>", row.first().map_or(String::new(), |name| series(name)));
            for (i, ((cell, (_, number)), own)) in row.iter().zip(&self.columns).zip(&columns).enumerate() {
                let (open, close) = if i == 0 { ("<th scope=\"row\"", "</th>") } else { ("<td", "</td>") };
                let _ = write!(html, "{open}{}{own}>{}{close}", class(*number), escape(cell));
            }
            html.push_str("</tr>\n");
        }
        html.push_str("</tbody></table></div>\n");
        html
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new("a < b", &["name", ">size"]);
        table.row(["a|b".to_owned(), "1".to_owned()]);
        table.row(["<i>".to_owned()]);
        table
    }

    #[test]
    fn one_table_three_ways() {
        assert_eq!(table().text(), "  name  size\n  a|b      1\n  <i>      –\n");
        assert_eq!(table().markdown(), "| name | size |\n| --- | ---: |\n| a\\|b | 1 |\n| &lt;i> | – |\n");
        let html = table().html();
        assert!(html.contains("<caption>a &lt; b</caption>"), "{html}");
        assert!(html.contains("<tr><th scope=\"row\">&lt;i&gt;</th><td class=\"n\">–</td></tr>"), "{html}");
    }

    #[test]
    fn rows_and_columns_say_whose_they_are() {
        let html = table().html_by(&[("<i>".to_owned(), 2), ("size".to_owned(), 5)]);
        assert!(html.contains("<th scope=\"col\" class=\"n\" data-series=\"5\">size</th>"), "{html}");
        assert!(html.contains("<tr data-series=\"2\"><th scope=\"row\">&lt;i&gt;</th>"), "{html}");
        assert_eq!(html.matches("data-series").count(), 4, "{html}");
    }
}
