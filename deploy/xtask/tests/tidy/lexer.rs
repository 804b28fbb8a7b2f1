//! Rust source as identifiers and punctuation, without comments and literals.

/// One identifier (or keyword, or number) or one character of punctuation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    /// Its text.
    pub(crate) text: String,
    /// Where it stands, counted from 1.
    pub(crate) line: usize,
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
    tokens: Vec<Token>,
}

/// The tokens of a file.
pub(crate) fn lex(text: &str) -> Vec<Token> {
    let mut lexer = Lexer { rest: text, line: 1, tokens: Vec::new() };
    while let Some(first) = lexer.rest.chars().next() {
        lexer.step(first);
    }
    lexer.tokens
}

impl Lexer<'_> {
    fn step(&mut self, first: char) {
        let rest = self.rest;
        if rest.starts_with("//") {
            self.skip(rest.find('\n').unwrap_or(rest.len()));
        } else if rest.starts_with("/*") {
            self.skip(block_comment(rest));
        } else if let Some(length) = string(rest) {
            self.skip(length);
        } else if first == '\'' {
            self.skip(quoted(rest));
        } else if let Some(raw) = rest.strip_prefix("r#").filter(|raw| starts_identifier(raw)) {
            self.rest = raw;
        } else if is_identifier(first) {
            let length = rest.find(|c| !is_identifier(c)).unwrap_or(rest.len());
            self.push(length);
        } else if first.is_whitespace() {
            self.skip(first.len_utf8());
        } else {
            self.push(first.len_utf8());
        }
    }

    fn push(&mut self, length: usize) {
        let text = self.rest[..length].to_owned();
        self.tokens.push(Token { text, line: self.line });
        self.skip(length);
    }

    fn skip(&mut self, length: usize) {
        self.line += self.rest[..length].matches('\n').count();
        self.rest = &self.rest[length..];
    }
}

fn is_identifier(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn starts_identifier(text: &str) -> bool {
    text.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_')
}

/// Length of the block comment at the front; they nest.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// Length of the string literal at the front (`"…"`, `b"…"`, `r#"…"#` and so on), if there is one.
fn string(text: &str) -> Option<usize> {
    let prefix = ["br", "cr", "b", "c", "r", ""].iter().find(|prefix| {
        let after = text.strip_prefix(**prefix).unwrap_or("");
        let raw = prefix.ends_with('r');
        after.starts_with('"') || raw && after.trim_start_matches('#').starts_with('"')
    })?;
    let after = &text[prefix.len()..];
    let hashes = after.len() - after.trim_start_matches('#').len();
    let body = prefix.len() + hashes + 1;
    if prefix.ends_with('r') {
        let end = format!("\"{}", "#".repeat(hashes));
        return Some(text[body..].find(&end).map_or(text.len(), |at| body + at + end.len()));
    }
    let mut escaped = false;
    for (at, c) in text[body..].char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(body + at + 1),
            _ => {}
        }
    }
    Some(text.len())
}

/// Length of the character literal at the front, or 1 for the quote of a lifetime.
fn quoted(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => {
            // The escaped character itself may be a quote.
            chars.next();
            chars.find(|(_, c)| *c == '\'').map_or(text.len(), |(at, _)| at + 1)
        }
        Some(_) => match chars.next() {
            Some((at, '\'')) => at + 1,
            _ => 1,
        },
        None => 1,
    }
}

#[test]
fn only_code_is_left() {
    let text = r####"
        // use crate::a;
        /* outer /* inner */ use crate::b; */
        let s = "use crate::c \" //"; let r = r#"crate::d " "#; let b = b"x"; let r#type = 'c';
        let quote = '\''; let brace = '{'; fn f<'a>(x: &'a str) {}
    "####;
    let words: Vec<String> = lex(text).into_iter().map(|token| token.text).collect();
    let expected = "let s = ; let r = ; let b = ; let type = ; let quote = ; let brace = ; \
                    fn f < a > ( x : & a str ) { }";
    assert_eq!(words, expected.split(' ').collect::<Vec<_>>());
}

#[test]
fn lines_are_counted_through_literals() {
    let tokens = lex("a\n\"x\ny\"\n/* \n */ b");
    assert_eq!(tokens.iter().map(|token| token.line).collect::<Vec<_>>(), [1, 5]);
}
