//! Copy-paste blocks: a figure as Markdown, HTML or reStructuredText, with alt text and caption.
//!
//! **Invariant:** every text of the result stands for itself in the markup; the caption says how many processes, which
//! interval, which versions, which machine, when, and the command that draws the figure again.

use super::figures::{DocumentFigure, Form};
use super::{html, markdown};

/// A markup language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Markup {
    /// Markdown with a `<picture>` inside, as on GitHub.
    Markdown,
    /// HTML.
    Html,
    /// reStructuredText, which has no `<picture>`: the light figure, whose paper is white on any page.
    Rest,
}

impl Markup {
    /// Every one by the name that options take.
    pub const ALL: [(&'static str, Self); 3] =
        [("markdown", Self::Markdown), ("html", Self::Html), ("rest", Self::Rest)];
}

/// What stands around a figure in a document.
pub struct Place<'a> {
    /// Folder of the figure's files, from the document; empty for its own.
    pub folder: &'a str,
    /// Whether there is a file for light pages, and one for dark ones.
    pub themes: (bool, bool),
    /// The command that draws it again.
    pub command: &'a str,
}

/// The block, ending in a line break.
#[must_use]
pub fn block(markup: Markup, figure: &DocumentFigure, place: &Place<'_>) -> String {
    let source = |form: Form| {
        let folder = place.folder.trim_end_matches('/');
        let file = figure.file(form);
        url(&if folder.is_empty() { file } else { format!("{folder}/{file}") })
    };
    let shown = source(if place.themes.0 { Form::Svg } else { Form::SvgDark });
    let dark = (place.themes == (true, true)).then(|| source(Form::SvgDark));
    let alt = figure.drawing.alt();
    let width = figure.drawing.scene.size.0;
    let facts = capital(&figure.drawing.figure.provenance.join(" · "));
    let title = &figure.drawing.figure.title;
    let picture = |indent: &str| {
        let image = format!("<img src=\"{shown}\" width=\"{width:.0}\" alt=\"{}\">", html::escape(alt));
        let Some(dark) = &dark else { return format!("{indent}{image}\n") };
        format!(
            "{indent}<picture>\n{indent}  <source media=\"(prefers-color-scheme: dark)\" srcset=\"{dark}\">\n\
             {indent}  {image}\n{indent}</picture>\n"
        )
    };
    match markup {
        Markup::Markdown => {
            let (title, facts) = (markdown::escape(title), markdown::escape(&facts));
            format!("{}\n*{title}.* {facts}. Drawn by `{}`.\n", picture(""), place.command)
        }
        Markup::Html => {
            let [title, facts, command] = [title, facts.as_str(), place.command].map(html::escape);
            format!(
                "<figure>\n{}  <figcaption>{title}. {facts}. Drawn by <code>{command}</code>.</figcaption>\n\
                 </figure>\n",
                picture("  ")
            )
        }
        Markup::Rest => {
            let [alt, title, facts] = [alt, title, facts.as_str()].map(escape_rest);
            let command = place.command;
            format!(
                ".. figure:: {shown}\n   :width: {width:.0}px\n   :alt: {alt}\n\n   *{title}.* {facts}. Drawn by \
                 ``{command}``.\n"
            )
        }
    }
}

/// A text that begins a sentence.
fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

/// A path as part of an address.
pub(super) fn url(path: &str) -> String {
    let keep = |b: u8| b.is_ascii_alphanumeric() || b"-_./~+".contains(&b);
    path.bytes().map(|b| if keep(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// Makes a text stand for itself in reStructuredText, on one line.
fn escape_rest(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '*' | '`' | '|' | '_' => escaped.extend(['\\', c]),
            '\n' | '\r' => escaped.push(' '),
            _ => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_stand_for_themselves() {
        assert_eq!(escape_rest("a_b *c* `d`\n|e|"), "a\\_b \\*c\\* \\`d\\` \\|e\\|");
        assert_eq!(url("../a b/c#1.svg"), "../a%20b/c%231.svg");
    }
}
