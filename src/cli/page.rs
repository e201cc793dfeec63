//! Reports as one HTML page. The file contains its style and its plots, and no script, so it can be sent to others and opened without a
//! network.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::Args;

use super::command_error::CommandError;
use super::sheet::{Line, Section, Sheet};
use crate::terminal_text::escape;

const STYLE: &str = include_str!("page.css");

/// Width of the longest bar with its label.
const WIDTH: f64 = 520.;

/// The file of a page.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct PageArguments {
    /// Also write the report to an HTML file, with plots and without scripts
    #[arg(long = "report", value_name = "FILE")]
    page: Option<PathBuf>,
}

impl PageArguments {
    /// Checks before the work that the page can be written.
    ///
    /// # Errors
    /// [`CommandError::Usage`] if the path is a folder, or its folder does not exist or cannot be written.
    pub(super) fn check(&self) -> Result<(), CommandError> {
        let Some(path) = &self.page else { return Ok(()) };
        let checked = match Place::of(path) {
            Place::Folder => Err(io::Error::from(io::ErrorKind::IsADirectory)),
            Place::Other => Ok(()),
            Place::File(target) => new_file(&target).map(drop),
        };
        checked.map_err(|source| {
            let error = CommandError::Page { path: path.clone(), source };
            CommandError::Usage(format!(
                "{error}. Choose a file in an existing folder that you may write to"
            ))
        })
    }

    /// Writes the page if one is requested. An existing file is replaced. An error does not replace that of the command, which is `result`.
    pub(super) fn write(
        &self,
        page: impl FnOnce() -> Page,
        result: Result<(), CommandError>,
    ) -> Result<(), CommandError> {
        let Some(path) = &self.page else { return result };
        match (write(path, &page().html()), result) {
            (Ok(()), result) => {
                tracing::info!("the report is in {}", path.display());
                result
            }
            (Err(source), Ok(())) => Err(CommandError::Page { path: path.clone(), source }),
            (Err(source), result) => {
                tracing::error!("{}", CommandError::Page { path: path.clone(), source });
                result
            }
        }
    }
}

/// What a page replaces.
enum Place {
    /// A file that exists or not. Symbolic links are resolved.
    File(PathBuf),
    Folder,
    /// A device or a pipe.
    Other,
}

impl Place {
    fn of(path: &Path) -> Self {
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => Self::Folder,
            Ok(found) if !found.is_file() => Self::Other,
            _ => Self::File(without_links(path)),
        }
    }
}

/// The path of the file that a path leads to. Unlike [`fs::canonicalize`], it also resolves a link to a file that does not exist.
fn without_links(path: &Path) -> PathBuf {
    /// As many links as Linux follows.
    const MOST: usize = 40;
    let mut path = Cow::Borrowed(path);
    for _ in 0..MOST {
        let Ok(target) = fs::read_link(&path) else { break };
        path = folder(&path).join(target).into();
    }
    path.into_owned()
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A new file beside the target, without a name that remains.
fn new_file(target: &Path) -> io::Result<tempfile::NamedTempFile> {
    // As for other new files, the umask removes permissions.
    let permissions = Permissions::from_mode(0o666);
    tempfile::Builder::new().permissions(permissions).tempfile_in(folder(target))
}

/// Replaces a file as a whole. Writes to a device or a pipe.
fn write(path: &Path, html: &str) -> io::Result<()> {
    match Place::of(path) {
        Place::Folder => Err(io::ErrorKind::IsADirectory.into()),
        Place::Other => fs::File::options().write(true).open(path)?.write_all(html.as_bytes()),
        Place::File(target) => {
            let mut file = new_file(&target)?;
            file.write_all(html.as_bytes())?;
            file.persist(&target).map(drop).map_err(|error| error.error)
        }
    }
}

/// A page with a title and sections.
#[derive(Debug)]
pub(super) struct Page {
    title: String,
    pub(super) body: String,
}

impl Page {
    pub(super) fn new(title: &str) -> Self {
        Self { title: title.to_owned(), body: format!("<h1>{}</h1>\n", text(title)) }
    }

    /// The sections of a text report.
    pub(super) fn of_sheet(sheet: &Sheet) -> Self {
        let mut page = Self::new(&sheet.title);
        page.sections(sheet);
        page
    }

    pub(super) fn sections(&mut self, sheet: &Sheet) {
        sheet.sections.iter().for_each(|section| self.section(section));
    }

    /// A text report.
    pub(super) fn of_text(report: &str) -> Self {
        let (title, rest) = report.split_once('\n').unwrap_or((report, ""));
        let mut page = Self::new(title);
        page.code(rest);
        page
    }

    pub(super) fn code(&mut self, code: &str) {
        self.add(format_args!("<pre><code>{}</code></pre>\n", text(code)));
    }

    fn section(&mut self, Section { heading, lines }: &Section) {
        if !heading.is_empty() {
            self.heading(heading);
        }
        let kind = |line: &Line| std::mem::discriminant(line);
        for group in lines.chunk_by(|a, b| kind(a) == kind(b)) {
            let (before, after) = match group {
                [Line::Value(..), ..] => ("<table>\n", "</table>\n"),
                [Line::Item(_), ..] => ("<ul>\n", "</ul>\n"),
                _ => ("", ""),
            };
            self.body += before;
            for line in group {
                match line {
                    Line::Value(name, value) => self.add(format_args!(
                        "<tr><th scope=\"row\">{}</th><td>{}</td></tr>\n",
                        text(name),
                        text(value)
                    )),
                    Line::Item(item) => self.add(format_args!("<li>{}</li>\n", text(item))),
                    Line::Code(code) => self.code(code),
                }
            }
            self.body += after;
        }
    }

    pub(super) fn heading(&mut self, heading: &str) {
        self.add(format_args!("<h2>{}</h2>\n", text(heading)));
    }

    pub(super) fn paragraph(&mut self, paragraph: &str) {
        self.add(format_args!("<p>{}</p>\n", text(paragraph)));
    }

    /// Horizontal bars from 0, with their values as text.
    pub(super) fn bars(&mut self, bars: &[(String, f64, String)]) {
        const ROW: f64 = 26.;
        const LABELS: f64 = 180.;
        let largest = bars.iter().map(|(_, value, _)| *value).fold(f64::MIN_POSITIVE, f64::max);
        let (width, height) = (LABELS + WIDTH, ROW * bars.len() as f64);
        self.add(format_args!(
            "<svg role=\"img\" viewBox=\"0 0 {width} {height}\" width=\"{width}\">\n"
        ));
        for (at, (name, value, shown)) in bars.iter().enumerate() {
            let (y, length) = (ROW * at as f64, (WIDTH - 120.) * value / largest);
            let (base, end) = (y + 17., LABELS + length + 6.);
            self.add(format_args!(
                "<text x=\"0\" y=\"{base}\">{}</text><rect class=\"data\" x=\"{LABELS}\" y=\"{}\" width=\"{length:.1}\" height=\"16\"/>\
                 <text x=\"{end:.1}\" y=\"{base}\">{}</text>\n",
                text(name),
                y + 5.,
                text(shown)
            ));
        }
        self.body += "</svg>\n";
    }

    /// Two lists of tokens side by side. Those that only one list has are marked.
    pub(super) fn tokens(&mut self, sides: [(&str, &[String]); 2], ends: (usize, usize)) {
        self.body += "<div class=\"tokens\">\n";
        for (name, tokens) in sides {
            self.add(format_args!("<div><div class=\"quiet\">{}</div><code>", text(name)));
            let end = tokens.len().saturating_sub(ends.1);
            for (at, token) in tokens.iter().enumerate() {
                let token = text(token);
                if (ends.0..end).contains(&at) {
                    self.add(format_args!("<mark>{token}</mark> "));
                } else {
                    self.add(format_args!("{token} "));
                }
            }
            self.body += "</code></div>\n";
        }
        self.body += "</div>\n";
    }

    /// The whole file. The policy forbids everything that is not in the file.
    pub(super) fn html(&self) -> String {
        let (title, body) = (text(&self.title), &self.body);
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n\
             <body>\n{body}</body>\n</html>\n"
        )
    }

    pub(super) fn add(&mut self, html: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.body.write_fmt(html);
    }
}

/// Text for HTML. Control characters and changes of direction are shown as escapes.
pub(super) fn text(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for character in escape(text).chars() {
        match character {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            other => html.push(other),
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_and_pipes_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let arguments = |name: &str| PageArguments { page: Some(at(name)) };
        let write = |name: &str, result| arguments(name).write(|| Page::new("t"), result);
        std::os::unix::fs::symlink("second", at("first")).unwrap();
        std::os::unix::fs::symlink("file.html", at("second")).unwrap();
        for _ in 0..2 {
            arguments("first").check().unwrap();
            write("first", Ok(())).unwrap();
            assert!(at("first").is_symlink() && at("second").is_symlink());
            assert!(fs::read_to_string(at("file.html")).unwrap().contains("<h1>t</h1>"));
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
        let made = std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap();
        assert!(made.success());
        let pipe = at("pipe");
        let reader = std::thread::spawn(move || fs::read_to_string(pipe).unwrap());
        arguments("pipe").check().unwrap();
        write("pipe", Ok(())).unwrap();
        assert!(reader.join().unwrap().contains("<h1>t</h1>"));
        assert!(!fs::metadata(at("pipe")).unwrap().is_file());
    }

    #[test]
    fn page_that_cannot_be_written_does_not_hide_the_result() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path().to_owned(), folder.path().join("missing/x.html")] {
            let arguments = PageArguments { page: Some(path) };
            assert!(matches!(arguments.check(), Err(CommandError::Usage(_))));
            let write = |result| arguments.write(|| Page::new("t"), result).unwrap_err();
            assert!(matches!(write(Ok(())), CommandError::Page { .. }));
            let own = CommandError::Texts { failed: 1, all: 2 };
            assert!(matches!(write(Err(own)), CommandError::Texts { .. }));
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn hostile_text_is_escaped_everywhere() {
        let hostile = "<script>alert('x')</script>\u{1b}[2J\u{202e}\"&";
        let mut sheet = Sheet::new(hostile);
        sheet.heading(hostile);
        sheet.line(hostile, hostile);
        sheet.item(hostile);
        sheet.code(hostile);
        let mut page = Page::of_sheet(&sheet);
        page.paragraph(hostile);
        page.bars(&[(hostile.into(), 1., hostile.into())]);
        page.tokens([(hostile, &[hostile.into()]), (hostile, &[])], (0, 0));
        let html = page.html();
        assert_eq!(html.matches("&lt;script&gt;alert(&#39;x&#39;)").count(), 13);
        assert!(
            !html.contains("<script") && !html.contains('\u{1b}') && !html.contains('\u{202e}')
        );
    }
}
