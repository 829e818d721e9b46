//! Tokens as a tree.

use serde_json::Value as Json;

use super::DEPTH_LIMIT;
use super::functions::Function;
use super::lex::{Lexeme, Token};

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Text(String),
    /// `{{PIPELINE}}`
    Action(Pipeline),
    /// `{{if}}`, `{{with}}` or `{{range}}`, with what stands before and behind `{{else}}`.
    Branch {
        kind: Kind,
        pipeline: Pipeline,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Break,
    Continue,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    If,
    With,
    Range,
}

/// `$a, $b := COMMAND | COMMAND`
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pipeline {
    pub(super) variables: Vec<String>,
    /// By `:=`; by `=` they were there before.
    pub(super) declares: bool,
    pub(super) commands: Vec<Command>,
}

/// Something, and its arguments.
pub(super) type Command = Vec<Operand>;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Operand {
    Literal(Json),
    Nil,
    Function(Function),
    /// Where the fields begin, and the names of those within each other.
    Path(Base, Vec<String>),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Base {
    Dot,
    Variable(String),
    Pipeline(Box<Pipeline>),
}

/// Reads the tokens of a template.
pub(super) fn parse(tokens: &[Lexeme]) -> Result<Vec<Node>, String> {
    let mut parser = Parser { tokens, at: 0, variables: vec!["$".into()], ranges: 0, depth: 0 };
    let (nodes, end) = parser.block().map_err(|why| parser.located(&why))?;
    match end {
        Stop::Text => Ok(nodes),
        Stop::Else | Stop::End => Err(parser.located("there is nothing that it could end")),
    }
}

/// What ends a block.
enum Stop {
    Text,
    Else,
    End,
}

struct Parser<'a> {
    tokens: &'a [Lexeme],
    at: usize,
    /// Those that can be used here.
    variables: Vec<String>,
    /// How many `range` are around this.
    ranges: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn located(&self, why: &str) -> String {
        let line = self.tokens.get(self.at.saturating_sub(1)).map_or(1, |lexeme| lexeme.line);
        format!("line {line}: {why}")
    }

    fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.at).map(|lexeme| &lexeme.token)
    }

    /// Whether white space stands before what comes next.
    fn spaced(&self) -> bool {
        self.tokens.get(self.at).is_some_and(|lexeme| lexeme.spaced)
    }

    fn next(&mut self) -> Result<&'a Token, String> {
        let token = self.peek().ok_or("it ends within an action, or {{end}} is missing")?;
        self.at += 1;
        Ok(token)
    }

    fn accept(&mut self, wanted: &Token) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, wanted: &Token, what: &str) -> Result<(), String> {
        if self.accept(wanted) { Ok(()) } else { Err(format!("{what} is missing")) }
    }

    fn accept_word(&mut self, wanted: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Word(word)) if word == wanted);
        self.at += usize::from(found);
        found
    }

    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, String>) -> Result<T, String> {
        if self.depth == DEPTH_LIMIT {
            return Err(format!("it is more than {DEPTH_LIMIT} levels deep"));
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    /// Nodes up to the end of what they are in. What ends it is read up to its own word.
    fn block(&mut self) -> Result<(Vec<Node>, Stop), String> {
        let mut nodes = Vec::new();
        while let Some(token) = self.peek() {
            self.at += 1;
            if let Token::Text(text) = token {
                nodes.push(Node::Text(text.clone()));
                continue;
            }
            let word = match self.peek() {
                Some(Token::Word(word)) => word.as_str(),
                _ => "",
            };
            self.at += 1;
            match word {
                "end" => {
                    self.expect(&Token::Close, "}} behind end")?;
                    return Ok((nodes, Stop::End));
                }
                "else" => return Ok((nodes, Stop::Else)),
                "if" => nodes.push(self.deeper(|parser| parser.branch(Kind::If))?),
                "with" => nodes.push(self.deeper(|parser| parser.branch(Kind::With))?),
                "range" => nodes.push(self.deeper(|parser| parser.branch(Kind::Range))?),
                "break" | "continue" => {
                    if self.ranges == 0 {
                        return Err(format!("{word} is outside of a range"));
                    }
                    self.expect(&Token::Close, "}}")?;
                    nodes.push(if word == "break" { Node::Break } else { Node::Continue });
                }
                "define" | "template" | "block" => return Err(format!("{word}: templates with names are not supported")),
                _ => {
                    self.at -= 1;
                    nodes.push(Node::Action(self.pipeline(1)?));
                    self.expect(&Token::Close, "}}")?;
                }
            }
        }
        Ok((nodes, Stop::Text))
    }

    /// What stands behind `if`, `with` or `range`, up to its end.
    fn branch(&mut self, kind: Kind) -> Result<Node, String> {
        let outside = self.variables.len();
        let pipeline = self.pipeline(if kind == Kind::Range { 2 } else { 1 })?;
        self.expect(&Token::Close, "}}")?;
        self.ranges += usize::from(kind == Kind::Range);
        let inside = self.variables.len();
        let (then, mut end) = self.block()?;
        self.ranges -= usize::from(kind == Kind::Range);
        self.variables.truncate(inside);
        let mut otherwise = Vec::new();
        if matches!(end, Stop::Else) {
            let again = if kind == Kind::Range { None } else { self.else_again(kind) };
            if let Some(kind) = again {
                // `{{else if}}` has the {{end}} of the first.
                otherwise.push(self.deeper(|parser| parser.branch(kind))?);
                end = Stop::End;
            } else {
                self.expect(&Token::Close, "}} behind else")?;
                (otherwise, end) = self.block()?;
            }
        }
        self.variables.truncate(outside);
        match end {
            Stop::End => Ok(Node::Branch { kind, pipeline, then, otherwise }),
            Stop::Else => Err("there is an {{else}} already".into()),
            Stop::Text => Err("{{end}} is missing".into()),
        }
    }

    fn else_again(&mut self, kind: Kind) -> Option<Kind> {
        let word = if kind == Kind::If { "if" } else { "with" };
        self.accept_word(word).then_some(kind)
    }

    /// A pipeline, which may give values to so many variables.
    fn pipeline(&mut self, variables: usize) -> Result<Pipeline, String> {
        let mut pipeline = Pipeline { variables: Vec::new(), declares: false, commands: Vec::new() };
        if let Some(declares) = self.declaration(variables, &mut pipeline.variables)? {
            pipeline.declares = declares;
        }
        loop {
            let command = self.command()?;
            if !pipeline.commands.is_empty() && !is_callable(&command[0]) {
                return Err("only a function or a field takes what is piped into it".into());
            }
            pipeline.commands.push(command);
            if !self.accept(&Token::Pipe) {
                break;
            }
        }
        // Only now: they are not in their own values.
        if pipeline.declares {
            self.variables.extend(pipeline.variables.iter().cloned());
        }
        Ok(pipeline)
    }

    /// `$a :=`, `$a =`, or `$a, $b :=`. Whether it declares; nothing if this is none.
    fn declaration(&mut self, most: usize, names: &mut Vec<String>) -> Result<Option<bool>, String> {
        let began = self.at;
        while let Some(Token::Variable(name)) = self.peek() {
            self.at += 1;
            names.push(name.clone());
            match self.peek() {
                Some(Token::Comma) if names.len() < most => self.at += 1,
                Some(Token::Declare | Token::Assign) => break,
                _ => {
                    names.clear();
                    break;
                }
            }
        }
        match self.peek() {
            Some(Token::Declare) if !names.is_empty() => {}
            Some(Token::Assign) if !names.is_empty() => {
                if let Some(unknown) = names.iter().find(|name| !self.variables.contains(name)) {
                    return Err(format!("variable {unknown} is not declared"));
                }
            }
            _ => {
                names.clear();
                self.at = began;
                return Ok(None);
            }
        }
        Ok(Some(self.next()? == &Token::Declare))
    }

    fn command(&mut self) -> Result<Command, String> {
        let mut command = Vec::new();
        while !matches!(self.peek(), None | Some(Token::Close | Token::Pipe | Token::Right)) {
            if !command.is_empty() && !self.spaced() {
                return Err("white space is missing between two arguments".into());
            }
            command.push(self.deeper(Self::operand)?);
        }
        match command.as_slice() {
            [] => Err("a value is missing".into()),
            [Operand::Nil, ..] => Err("nil is nothing that can be done".into()),
            [first, _, ..] if !is_callable(first) => Err("what is no function takes no arguments".into()),
            _ => Ok(command),
        }
    }

    fn operand(&mut self) -> Result<Operand, String> {
        let base = match self.next()? {
            Token::Literal(value) => return Ok(Operand::Literal(value.clone())),
            Token::Word(word) if word == "nil" => return Ok(Operand::Nil),
            Token::Word(word) => {
                let function = Function::named(word).ok_or_else(|| format!("function {word:?} is not defined"))?;
                return Ok(Operand::Function(function));
            }
            Token::Dot => return Ok(Operand::Path(Base::Dot, Vec::new())),
            Token::Field(_) => {
                self.at -= 1;
                Base::Dot
            }
            Token::Variable(name) if self.variables.contains(name) => Base::Variable(name.clone()),
            Token::Variable(name) => return Err(format!("variable {name} is not declared")),
            Token::Left => {
                let outside = self.variables.len();
                let pipeline = self.pipeline(0)?;
                self.variables.truncate(outside);
                self.expect(&Token::Right, ")")?;
                Base::Pipeline(Box::new(pipeline))
            }
            other => return Err(format!("{other:?} is no value")),
        };
        let mut fields = Vec::new();
        while let Some(Token::Field(name)) = self.peek() {
            // The first field is the operand itself; a further one follows at once.
            if self.spaced() && !(fields.is_empty() && base == Base::Dot) {
                break;
            }
            fields.push(name.clone());
            self.at += 1;
        }
        Ok(Operand::Path(base, fields))
    }
}

/// Whether an operand may have arguments.
fn is_callable(operand: &Operand) -> bool {
    match operand {
        Operand::Function(_) => true,
        Operand::Path(_, fields) => !fields.is_empty(),
        Operand::Literal(_) | Operand::Nil => false,
    }
}
