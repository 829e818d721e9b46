//! A template's text as tokens.

use serde_json::{Number, Value as Json};

/// A token inside an action, or a text between two.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// What stands outside of actions.
    Text(String),
    /// `{{`
    Open,
    /// `}}`
    Close,
    /// `.`
    Dot,
    /// `.Name`
    Field(String),
    /// `$` or `$name`
    Variable(String),
    /// `if`, `len`, ...
    Word(String),
    /// A string, a number or a truth value.
    Literal(Json),
    /// `|`
    Pipe,
    /// `:=`
    Declare,
    /// `=`
    Assign,
    /// `,`
    Comma,
    /// `(`
    Left,
    /// `)`
    Right,
}

/// A token and what stood before it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Lexeme {
    pub(super) token: Token,
    /// White space stood before it.
    pub(super) spaced: bool,
    /// Its line, from 1.
    pub(super) line: usize,
}

const SPACES: [char; 4] = [' ', '\t', '\r', '\n'];

/// The tokens of a template.
pub(super) fn tokens(text: &str) -> Result<Vec<Lexeme>, String> {
    let mut lexer = Lexer { rest: text, line: 1, tokens: Vec::new() };
    while !lexer.rest.is_empty() {
        lexer.text();
        if !lexer.rest.is_empty() {
            let line = lexer.line;
            lexer.action().map_err(|why| format!("line {line}: {why}"))?;
        }
    }
    Ok(lexer.tokens)
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
    tokens: Vec<Lexeme>,
}

impl Lexer<'_> {
    fn push(&mut self, token: Token, spaced: bool) {
        self.tokens.push(Lexeme { token, spaced, line: self.line });
    }

    fn skip(&mut self, bytes: usize) {
        self.line += self.rest[..bytes].matches('\n').count();
        self.rest = &self.rest[bytes..];
    }

    fn skip_spaces(&mut self) -> bool {
        let bytes = self.rest.len() - self.rest.trim_start_matches(SPACES).len();
        self.skip(bytes);
        bytes > 0
    }

    /// The text up to the next action, without the white space at its end if that action begins with `{{- `.
    fn text(&mut self) {
        let end = self.rest.find("{{").unwrap_or(self.rest.len());
        let text = &self.rest[..end];
        let text = if self.rest[end..].strip_prefix("{{-").is_some_and(|rest| rest.starts_with(SPACES)) {
            text.trim_end_matches(SPACES)
        } else {
            text
        };
        if !text.is_empty() {
            self.push(Token::Text(text.to_owned()), false);
        }
        self.skip(end);
    }

    /// One action, and the white space behind it if it ends with ` -}}`.
    fn action(&mut self) -> Result<(), String> {
        self.skip(2);
        let trims = self.rest.strip_prefix('-').is_some_and(|rest| rest.starts_with(SPACES));
        if trims {
            // White space before a comment can only be that of a trim marker.
            self.skip(1);
            self.skip_spaces();
        }
        if self.rest.starts_with("/*") {
            return self.comment();
        }
        self.push(Token::Open, false);
        loop {
            let spaced = self.skip_spaces();
            if self.close(spaced) {
                return Ok(());
            }
            let (token, bytes) = token(self.rest)?;
            self.push(token, spaced);
            self.skip(bytes);
        }
    }

    fn comment(&mut self) -> Result<(), String> {
        let end = self.rest.find("*/").ok_or("the comment has no end")?;
        self.skip(end + 2);
        let spaced = self.skip_spaces();
        let tokens = self.tokens.len();
        let closed = if spaced { self.rest.starts_with("-}}") } else { self.rest.starts_with("}}") };
        if !closed || !self.close(spaced) {
            return Err("a comment ends right before the }} of its action".into());
        }
        self.tokens.truncate(tokens);
        Ok(())
    }

    /// The end of an action, if it is here.
    fn close(&mut self, spaced: bool) -> bool {
        let trims = spaced && self.rest.starts_with("-}}");
        if !trims && !self.rest.starts_with("}}") {
            return false;
        }
        self.push(Token::Close, spaced);
        self.skip(if trims { 3 } else { 2 });
        if trims {
            self.skip_spaces();
        }
        true
    }
}

/// The token that `rest` begins with, and its length in bytes.
fn token(rest: &str) -> Result<(Token, usize), String> {
    let Some(first) = rest.chars().next() else { return Err("the action has no end: }} is missing".into()) };
    let second = rest[first.len_utf8()..].chars().next();
    let word = |from: usize| {
        let end = rest[from..].find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len() - from);
        (&rest[from..from + end], from + end)
    };
    let digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
    Ok(match first {
        '|' => (Token::Pipe, 1),
        '(' => (Token::Left, 1),
        ')' => (Token::Right, 1),
        ',' => (Token::Comma, 1),
        '=' => (Token::Assign, 1),
        ':' if second == Some('=') => (Token::Declare, 2),
        '"' | '`' | '\'' => quoted(rest, first)?,
        '.' if digit(second) => number(rest)?,
        '.' => match word(1) {
            ("", _) => (Token::Dot, 1),
            (name, end) => (Token::Field(name.to_owned()), end),
        },
        '$' => {
            let (_, end) = word(1);
            (Token::Variable(rest[..end].to_owned()), end)
        }
        '0'..='9' | '+' | '-' => number(rest)?,
        c if c.is_alphabetic() || c == '_' => match word(0) {
            ("true", end) => (Token::Literal(Json::Bool(true)), end),
            ("false", end) => (Token::Literal(Json::Bool(false)), end),
            (name, end) => (Token::Word(name.to_owned()), end),
        },
        c => return Err(format!("{c:?} means nothing here")),
    })
}

/// A string, a raw string, or a character, which is a number.
fn quoted(rest: &str, quote: char) -> Result<(Token, usize), String> {
    let mut text = String::new();
    let mut at = 1;
    loop {
        let c = rest[at..].chars().next().ok_or_else(|| format!("the string has no end: {quote} is missing"))?;
        at += c.len_utf8();
        match c {
            c if c == quote => break,
            '\\' if quote != '`' => {
                let (c, bytes) = escape(&rest[at..], quote)?;
                text.push(c);
                at += bytes;
            }
            '\n' if quote != '`' => return Err(format!("the string has no end: {quote} is missing")),
            // As with Go.
            '\r' if quote == '`' => {}
            c => text.push(c),
        }
    }
    let value = match (quote, text.chars().next(), text.chars().count()) {
        ('\'', Some(c), 1) => Json::from(u32::from(c)),
        ('\'', ..) => return Err("there is one character between ' and '".into()),
        _ => Json::String(text),
    };
    Ok((Token::Literal(value), at))
}

/// What stands behind a backslash. Bytes that are no characters cannot be written.
fn escape(rest: &str, quote: char) -> Result<(char, usize), String> {
    let invalid = || "a backslash is followed by one of a b f n r t v \\, the quote, or the number of a character".to_owned();
    let number = |from: usize, digits: usize, radix: u32| {
        let text = rest.get(from..from + digits).filter(|text| text.bytes().all(|b| b.is_ascii_alphanumeric()));
        let value = text.and_then(|text| u32::from_str_radix(text, radix).ok()).and_then(char::from_u32);
        value.map(|c| (c, from + digits)).ok_or_else(invalid)
    };
    let c = match rest.chars().next().ok_or_else(invalid)? {
        'a' => '\u{7}',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\u{b}',
        '\\' => '\\',
        c if c == quote => c,
        'x' => return number(1, 2, 16).and_then(|(c, bytes)| if c.is_ascii() { Ok((c, bytes)) } else { Err(invalid()) }),
        'u' => return number(1, 4, 16),
        'U' => return number(1, 8, 16),
        '0'..='7' => return number(0, 3, 8).and_then(|(c, bytes)| if c.is_ascii() { Ok((c, bytes)) } else { Err(invalid()) }),
        _ => return Err(invalid()),
    };
    Ok((c, 1))
}

/// A number as Go writes them, but for complex ones and hexadecimal fractions.
fn number(rest: &str) -> Result<(Token, usize), String> {
    let mut end = 0;
    let hexadecimal = rest.trim_start_matches(['+', '-']).starts_with(['0']) && rest.to_ascii_lowercase().contains("0x");
    for c in rest.chars() {
        let exponent = !hexadecimal && end > 0 && matches!(rest.as_bytes()[end - 1], b'e' | b'E');
        let sign = matches!(c, '+' | '-') && (end == 0 || exponent);
        if !sign && !c.is_ascii_alphanumeric() && !matches!(c, '_' | '.') {
            break;
        }
        end += c.len_utf8();
    }
    let text = &rest[..end];
    let invalid = || format!("{text:?} is no number");
    let (sign, digits) = match text.as_bytes().first() {
        Some(b'-') => ("-", &text[1..]),
        Some(b'+') => ("", &text[1..]),
        _ => ("", text),
    };
    let (radix, plain) = match digits.get(..2).map(str::to_ascii_lowercase).as_deref() {
        Some("0x") => (16, &digits[2..]),
        Some("0o") => (8, &digits[2..]),
        Some("0b") => (2, &digits[2..]),
        Some(two) if two.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit() || b == b'_') => (8, &digits[1..]),
        _ => (10, digits),
    };
    if plain.ends_with('_') || plain.contains("__") || (radix == 10 && plain.starts_with('_')) {
        return Err(invalid());
    }
    let plain = format!("{sign}{}", plain.replace('_', ""));
    let number = match i64::from_str_radix(&plain, radix) {
        Ok(number) => Number::from(number),
        Err(_) if radix == 10 => match plain.parse::<u64>() {
            Ok(number) => Number::from(number),
            Err(_) if plain.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-')) => {
                plain.parse::<f64>().ok().and_then(Number::from_f64).ok_or_else(invalid)?
            }
            Err(_) => return Err(invalid()),
        },
        Err(_) => return Err(invalid()),
    };
    Ok((Token::Literal(Json::Number(number)), end))
}
