//! Where Debian's backports are: on the same mirror as the suite this machine already uses.

/// One Debian archive that this machine's apt knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    uri: String,
    signed_by: Option<String>,
}

impl Source {
    /// The source that serves `suite` with component main, out of the text of apt's source files.
    pub(crate) fn find(texts: &[String], suite: &str) -> Option<Source> {
        texts
            .iter()
            .find_map(|text| from_stanzas(text, suite).or_else(|| from_lines(text, suite)))
    }

    /// The stanza that adds `suite` of the same archive.
    pub(crate) fn stanza(&self, suite: &str) -> String {
        let mut stanza = format!(
            "# Added by `cargo xtask setup` for a QEMU that reconnects; safe to delete.\n\
             Types: deb\nURIs: {}\nSuites: {suite}\nComponents: main\n",
            self.uri
        );
        if let Some(key) = &self.signed_by {
            stanza.push_str(&format!("Signed-By: {key}\n"));
        }
        stanza
    }
}

/// The format of `*.sources`: fields in stanzas, stanzas parted by empty lines.
fn from_stanzas(text: &str, suite: &str) -> Option<Source> {
    text.split("\n\n").find_map(|stanza| {
        let has = |name, word: &str| {
            field(stanza, name).is_some_and(|value| value.split_whitespace().any(|w| w == word))
        };
        let serves = has("Types", "deb") && has("Suites", suite) && has("Components", "main");
        let uri = field(stanza, "URIs")?.split_whitespace().next()?.to_owned();
        serves.then(|| Source {
            uri,
            signed_by: field(stanza, "Signed-By").map(str::to_owned),
        })
    })
}

fn field<'a>(stanza: &'a str, name: &str) -> Option<&'a str> {
    stanza.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// The older format: `deb [options] URI SUITE COMPONENT...`, one source a line.
fn from_lines(text: &str, suite: &str) -> Option<Source> {
    text.lines().find_map(|line| {
        let rest = line.trim().strip_prefix("deb ")?.trim_start();
        let (options, rest) = match rest.strip_prefix('[') {
            Some(rest) => rest.split_once(']')?,
            None => ("", rest),
        };
        let mut words = rest.split_whitespace();
        let (uri, found) = (words.next()?, words.next()?);
        let signed_by = options
            .split_whitespace()
            .find_map(|option| option.strip_prefix("signed-by="));
        (found == suite && words.any(|component| component == "main")).then(|| Source {
            uri: uri.to_owned(),
            signed_by: signed_by.map(str::to_owned),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STANZAS: &str = "Types: deb\nURIs: http://mirror.example/debian-security\n\
        Suites: bookworm-security\nComponents: main\n\n# a comment\nTypes: deb\n\
        URIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\n\
        Components: main contrib\nSigned-By: /usr/share/keyrings/a.gpg\n";

    #[test]
    fn stanza_file_gives_the_archive_of_the_suite() {
        let source = Source::find(&[STANZAS.to_owned()], "bookworm").unwrap();
        assert_eq!(source.uri, "http://mirror.example/debian");
        let stanza = source.stanza("bookworm-backports");
        assert!(stanza.contains("Suites: bookworm-backports\n"), "{stanza}");
        assert!(stanza.ends_with("Signed-By: /usr/share/keyrings/a.gpg\n"));
    }

    #[test]
    fn line_file_gives_the_archive_of_the_suite() {
        let text = "# deb http://old.example bookworm main\n\
            deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian bookworm main\n";
        let source = Source::find(&[text.to_owned()], "bookworm").unwrap();
        assert_eq!(
            source,
            Source {
                uri: "http://mirror.example/debian".to_owned(),
                signed_by: Some("/k.gpg".to_owned()),
            }
        );
    }

    #[test]
    fn unknown_suite_gives_nothing() {
        let texts = [
            STANZAS.to_owned(),
            "deb http://a.example trixie main".into(),
        ];
        assert_eq!(Source::find(&texts, "bullseye"), None);
    }
}
