//! apt's configuration language (apt.conf(5)): enough of it to learn how this host reaches the network.

use std::collections::BTreeMap;

/// No configuration nests deeper than a handful of levels; more is an attack or an accident.
const MAX_DEPTH: usize = 32;

/// apt's options, flattened: `Acquire { http { Proxy "x"; } }` is `acquire::http::proxy` = `x`.
///
/// Names are kept in lower case, because apt compares them without regard to case. Where files contradict each
/// other the one parsed last wins, as in apt. Anonymous list items are read past: nothing here needs them.
#[derive(Clone, Debug, Default)]
pub(super) struct AptConf {
    values: BTreeMap<String, String>,
}

impl AptConf {
    /// Reads one file on top of what is known. apt would stop at a fault in its configuration; here the rest of the
    /// file is left out instead, since a host whose apt works is not for us to judge.
    pub(super) fn read(&mut self, text: &str) {
        let mut scopes: Vec<String> = Vec::new();
        let mut words: Vec<String> = Vec::new();
        for token in tokens(text) {
            match token {
                Token::Word(word) => words.push(word),
                Token::Open => {
                    if scopes.len() == MAX_DEPTH {
                        return;
                    }
                    scopes.push(name_of(&scopes, words.first().map_or("", String::as_str)));
                    words.clear();
                }
                Token::Close => {
                    self.statement(&scopes, &mut words);
                    if scopes.pop().is_none() {
                        return;
                    }
                }
                Token::End => self.statement(&scopes, &mut words),
            }
        }
    }

    /// The value of an option, by its full name in lower case.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// The options directly below `name`, as (last part of the name, value).
    pub(super) fn below<'a>(&'a self, name: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let prefix = format!("{name}::");
        let from = self.values.range(prefix.clone()..);
        from.map_while(move |(key, value)| Some((key.strip_prefix(&prefix)?, value.as_str())))
            .filter(|(rest, _)| !rest.contains("::"))
    }

    fn statement(&mut self, scopes: &[String], words: &mut Vec<String>) {
        match words.as_slice() {
            [clear, names @ ..] if clear.eq_ignore_ascii_case("#clear") => {
                for name in names {
                    let name = name_of(scopes, name);
                    let below = format!("{name}::");
                    self.values.retain(|key, _| *key != name && !key.starts_with(&below));
                }
            }
            // `Name:: "x"` adds to a list, a lone `"x"` is a list item; `#include` names files apt reads itself.
            [name, value] if !name.ends_with("::") && !name.starts_with('#') => {
                self.values.insert(name_of(scopes, name), value.clone());
            }
            _ => {}
        }
        words.clear();
    }
}

fn name_of(scopes: &[String], name: &str) -> String {
    let name = name.trim_end_matches("::").to_ascii_lowercase();
    match scopes.last() {
        Some(scope) => format!("{scope}::{name}"),
        None => name,
    }
}

enum Token {
    Word(String),
    Open,
    Close,
    End,
}

fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        // A directive starts with `#` and takes part in the syntax; any other `#` starts a comment.
        let directive = ["#clear", "#include"].iter().any(|d| starts_with(rest, d));
        if rest.starts_with("//") || (first == '#' && !directive) {
            rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
        } else if let Some(comment) = rest.strip_prefix("/*") {
            rest = comment.split_once("*/").map_or("", |(_, rest)| rest);
        } else if first.is_whitespace() {
            rest = rest.trim_start();
        } else if let Some(quoted) = rest.strip_prefix('"') {
            let Some((word, after)) = quoted.split_once('"') else { return tokens };
            tokens.push(Token::Word(word.to_owned()));
            rest = after;
        } else if let Some(token) = match first {
            '{' => Some(Token::Open),
            '}' => Some(Token::Close),
            ';' => Some(Token::End),
            _ => None,
        } {
            tokens.push(token);
            rest = &rest[1..];
        } else {
            let end = rest.find(|c: char| c.is_whitespace() || "{};\"".contains(c)).unwrap_or(rest.len());
            tokens.push(Token::Word(rest[..end].to_owned()));
            rest = &rest[end..];
        }
    }
    tokens
}

fn starts_with(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(text: &str) -> AptConf {
        let mut conf = AptConf::default();
        conf.read(text);
        conf
    }

    #[test]
    fn blocks_and_scoped_names_are_the_same_thing() {
        for text in [
            r#"Acquire::http::Proxy "http://proxy.example:3142";"#,
            r#"acquire { HTTP { proxy "http://proxy.example:3142"; }; };"#,
            "Acquire { http::Proxy \"http://proxy.example:3142\" }",
            "Acquire::http::Proxy http://proxy.example:3142;",
        ] {
            assert_eq!(conf(text).value("acquire::http::proxy"), Some("http://proxy.example:3142"), "{text}");
        }
    }

    #[test]
    fn comments_of_all_three_kinds_are_skipped_and_quotes_protect_them() {
        let text = "// Acquire::http::Proxy \"a\";\n# Acquire::http::Proxy \"b\";\n/* Acquire::http::Proxy \"c\";\n */
            APT::Update { \"cmd # { // not a comment }\"; };
            Acquire::http::Proxy \"http://p.example/#x\"; # trailing \"";
        assert_eq!(conf(text).value("acquire::http::proxy"), Some("http://p.example/#x"));
    }

    #[test]
    fn clear_removes_a_whole_subtree_and_later_files_win() {
        let mut conf =
            conf("Acquire::http { Proxy \"http://a\"; Proxy::mirror.example \"DIRECT\"; Timeout \"3\"; };");
        assert_eq!(conf.below("acquire::http::proxy").collect::<Vec<_>>(), [("mirror.example", "DIRECT")]);
        conf.read("#clear Acquire::http::Proxy;");
        assert_eq!(conf.value("acquire::http::proxy"), None);
        assert_eq!(conf.below("acquire::http::proxy").count(), 0);
        assert_eq!(conf.value("acquire::http::timeout"), Some("3"));
        conf.read("Acquire::http::Timeout 4;");
        assert_eq!(conf.value("acquire::http::timeout"), Some("4"));
    }

    #[test]
    fn lists_do_not_disturb_what_follows() {
        let text = "APT { NeverAutoRemove { \"^linux.*\"; \"^x$\"; }; A:: \"b\"; }; Acquire::http::Proxy \"http://a\";";
        assert_eq!(conf(text).value("acquire::http::proxy"), Some("http://a"));
    }

    #[test]
    fn broken_files_end_quietly() {
        for text in ["}", "{{{{", "\"", "/*", "a { b", &"{".repeat(100_000), "#clear", "é{ü \"ß\";}"] {
            conf(text);
        }
    }
}
