//! Pieces to a tree.

use serde_json::Value;

use super::Fault;
use super::lex::{Action, Kind, Piece, Word};

/// Deepest nesting of blocks and parentheses.
const MAX_DEPTH: usize = 48;

/// One node of the tree.
#[derive(Debug)]
pub(super) enum Node {
    /// Copied as it is.
    Text(String),
    /// Evaluated and written.
    Action(Pipe),
    /// The first branch whose pipe is true.
    If {
        branches: Vec<(Pipe, Vec<Node>)>,
        otherwise: Vec<Node>,
    },
    /// The body for each element.
    Range {
        pipe: Pipe,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
    /// The body with another dot.
    With {
        pipe: Pipe,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
    /// Ends the range.
    Break,
    /// The next element.
    Continue,
}

/// Commands in a row, and the variables that their value goes to.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) at: usize,
    pub(super) variables: Vec<String>,
    /// Whether the variables are there already (`=`).
    pub(super) assign: bool,
    pub(super) commands: Vec<Vec<Operand>>,
}

/// One operand: a base and the fields after it.
#[derive(Debug)]
pub(super) struct Operand {
    pub(super) at: usize,
    pub(super) base: Base,
    pub(super) fields: Vec<String>,
}

/// What an operand begins with.
#[derive(Debug)]
pub(super) enum Base {
    Dot,
    Variable(String),
    Function(String),
    Literal(Value),
    Nil,
    Group(Box<Pipe>),
}

/// How a list of nodes ended.
enum Stop {
    Text,
    End,
    Else(Action),
}

pub(super) fn parse(pieces: Vec<Piece>) -> Result<Vec<Node>, Fault> {
    let mut parser = Parser {
        pieces: pieces.into_iter(),
        scopes: vec![vec![String::new()]],
        ranges: 0,
        depth: 0,
    };
    match parser.list()? {
        (nodes, Stop::Text) => Ok(nodes),
        (_, Stop::End) => Err(Fault::new(parser.last(), "unexpected {{end}}")),
        (_, Stop::Else(action)) => Err(Fault::new(action.at, "unexpected {{else}}")),
    }
}

struct Parser {
    pieces: std::vec::IntoIter<Piece>,
    /// Names of the variables in force; the first is `$`.
    scopes: Vec<Vec<String>>,
    ranges: usize,
    depth: usize,
}

impl Parser {
    fn last(&self) -> usize {
        self.pieces
            .as_slice()
            .iter()
            .find_map(|p| {
                if let Piece::Action(a) = p {
                    Some(a.at)
                } else {
                    None
                }
            })
            .unwrap_or(0)
    }

    fn list(&mut self) -> Result<(Vec<Node>, Stop), Fault> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let action = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action(action) => action,
            };
            let keyword = match action.words.first() {
                Some(Word {
                    kind: Kind::Name(name),
                    ..
                }) => name.as_str(),
                _ => "",
            };
            match keyword {
                "end" => return lone(&action).map(|()| (nodes, Stop::End)),
                "else" => return Ok((nodes, Stop::Else(action))),
                "if" => nodes.push(self.branches(action)?),
                "range" | "with" => {
                    let range = keyword == "range";
                    nodes.push(self.block(action, range)?);
                }
                "break" | "continue" => {
                    lone(&action)?;
                    if self.ranges == 0 {
                        return Err(Fault::new(
                            action.at,
                            format!("{{{{{keyword}}}}} outside {{{{range}}}}"),
                        ));
                    }
                    nodes.push(if keyword == "break" {
                        Node::Break
                    } else {
                        Node::Continue
                    });
                }
                "define" | "template" | "block" => {
                    return Err(Fault::new(
                        action.at,
                        format!("{keyword} is not supported in a format"),
                    ));
                }
                _ => nodes.push(Node::Action(self.pipe(&action.words, action.at, false)?)),
            }
        }
        Ok((nodes, Stop::Text))
    }

    fn descend(&mut self, at: usize) -> Result<(), Fault> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Fault::new(at, "too deeply nested"));
        }
        Ok(())
    }

    fn branches(&mut self, action: Action) -> Result<Node, Fault> {
        self.descend(action.at)?;
        let scopes = self.scopes.len();
        let (mut branches, mut action) = (Vec::new(), action);
        let otherwise = loop {
            self.scopes.push(Vec::new());
            let pipe = self.pipe(&action.words[1..], action.at, false)?;
            let (body, end) = self.list()?;
            branches.push((pipe, body));
            match end {
                Stop::End => break Vec::new(),
                Stop::Text => return Err(Fault::new(action.at, "unclosed {{if}}")),
                Stop::Else(next) => match next.words.get(1) {
                    Some(Word {
                        kind: Kind::Name(name),
                        ..
                    }) if name == "if" => {
                        action = Action {
                            at: next.at,
                            words: next.words[1..].to_vec(),
                        };
                    }
                    _ => {
                        lone(&next)?;
                        break self.otherwise(&next)?;
                    }
                },
            }
        };
        self.scopes.truncate(scopes);
        self.depth -= 1;
        Ok(Node::If { branches, otherwise })
    }

    fn block(&mut self, action: Action, range: bool) -> Result<Node, Fault> {
        self.descend(action.at)?;
        let scopes = self.scopes.len();
        self.scopes.push(Vec::new());
        let pipe = self.pipe(&action.words[1..], action.at, range)?;
        self.ranges += usize::from(range);
        let (body, end) = self.list()?;
        self.ranges -= usize::from(range);
        let otherwise = match end {
            Stop::End => Vec::new(),
            Stop::Text => return Err(Fault::new(action.at, "unclosed block")),
            Stop::Else(next) => {
                lone(&next)?;
                self.otherwise(&next)?
            }
        };
        self.scopes.truncate(scopes);
        self.depth -= 1;
        Ok(if range {
            Node::Range {
                pipe,
                body,
                otherwise,
            }
        } else {
            Node::With {
                pipe,
                body,
                otherwise,
            }
        })
    }

    fn otherwise(&mut self, action: &Action) -> Result<Vec<Node>, Fault> {
        match self.list()? {
            (nodes, Stop::End) => Ok(nodes),
            _ => Err(Fault::new(action.at, "{{else}} without {{end}}")),
        }
    }

    /// Variables of a pipe, then its commands.
    fn pipe(&mut self, words: &[Word], at: usize, range: bool) -> Result<Pipe, Fault> {
        let (variables, assign, rest) = declaration(words, range)?;
        let pipe_at = rest.first().map_or(at, |word| word.at);
        let mut reader = Reader {
            words: rest,
            next: 0,
            scopes: &self.scopes,
            depth: self.depth,
        };
        let commands = reader.commands(pipe_at)?;
        if let Some(word) = reader.words.get(reader.next) {
            return Err(Fault::new(word.at, "unexpected right paren"));
        }
        for name in &variables {
            if assign && !known(&self.scopes, name) {
                return Err(Fault::new(at, format!("undefined variable \"${name}\"")));
            }
        }
        if !assign && let Some(scope) = self.scopes.last_mut() {
            scope.extend(variables.iter().cloned());
        }
        Ok(Pipe {
            at: pipe_at,
            variables,
            assign,
            commands,
        })
    }
}

fn known(scopes: &[Vec<String>], name: &str) -> bool {
    scopes.iter().flatten().any(|known| known == name)
}

fn lone(action: &Action) -> Result<(), Fault> {
    match action.words.get(1) {
        Some(word) => Err(Fault::new(word.at, "unexpected word in the action")),
        None => Ok(()),
    }
}

/// `$x :=`, `$x =`, and for a range `$key, $value :=`.
fn declaration(words: &[Word], range: bool) -> Result<(Vec<String>, bool, &[Word]), Fault> {
    let kinds: Vec<&Kind> = words.iter().take(4).map(|word| &word.kind).collect();
    match kinds.as_slice() {
        [Kind::Variable(one), Kind::Declare, ..] => Ok((vec![one.clone()], false, &words[2..])),
        [Kind::Variable(one), Kind::Assign, ..] => Ok((vec![one.clone()], true, &words[2..])),
        [
            Kind::Variable(key),
            Kind::Comma,
            Kind::Variable(value),
            Kind::Declare,
        ] if range => Ok((vec![key.clone(), value.clone()], false, &words[4..])),
        [Kind::Variable(_), Kind::Comma, ..] => {
            Err(Fault::new(words[1].at, "too many declarations in the action"))
        }
        _ => Ok((Vec::new(), false, words)),
    }
}

struct Reader<'a> {
    words: &'a [Word],
    next: usize,
    scopes: &'a [Vec<String>],
    depth: usize,
}

impl Reader<'_> {
    /// Commands up to the end or a right parenthesis, which is left.
    fn commands(&mut self, at: usize) -> Result<Vec<Vec<Operand>>, Fault> {
        let mut commands = vec![Vec::new()];
        while let Some(word) = self.words.get(self.next) {
            let command = commands.len() - 1;
            match &word.kind {
                Kind::Close => break,
                Kind::Pipe => {
                    if commands[command].is_empty() {
                        return Err(Fault::new(word.at, "missing value before the pipe"));
                    }
                    commands.push(Vec::new());
                    self.next += 1;
                }
                _ => {
                    let operand = self.operand()?;
                    commands[command].push(operand);
                }
            }
        }
        if commands.last().is_none_or(Vec::is_empty) {
            return Err(Fault::new(at, "missing value for the action"));
        }
        for command in commands.iter().skip(1) {
            let method = matches!(command[0].base, Base::Dot) && !command[0].fields.is_empty();
            if !method && !matches!(command[0].base, Base::Function(_)) {
                return Err(Fault::new(command[0].at, "a pipe goes into a function"));
            }
        }
        Ok(commands)
    }

    fn operand(&mut self) -> Result<Operand, Fault> {
        let word = self.words[self.next].clone();
        self.next += 1;
        let mut fields = Vec::new();
        let base = match word.kind {
            Kind::Dot => Base::Dot,
            Kind::Field(name) => {
                fields.push(name);
                Base::Dot
            }
            Kind::Variable(name) if known(self.scopes, &name) => Base::Variable(name),
            Kind::Variable(name) => {
                return Err(Fault::new(word.at, format!("undefined variable \"${name}\"")));
            }
            Kind::Name(name) if super::functions::exists(&name) => Base::Function(name),
            Kind::Name(name) => return Err(Fault::new(word.at, format!("function \"{name}\" not defined"))),
            Kind::Literal(value) => Base::Literal(value),
            Kind::Nil => Base::Nil,
            Kind::Open => {
                self.depth += 1;
                if self.depth > MAX_DEPTH {
                    return Err(Fault::new(word.at, "too deeply nested"));
                }
                let commands = self.commands(word.at)?;
                self.depth -= 1;
                if self.words.get(self.next).map(|word| &word.kind) != Some(&Kind::Close) {
                    return Err(Fault::new(word.at, "unclosed left paren"));
                }
                self.next += 1;
                Base::Group(Box::new(Pipe {
                    at: word.at,
                    variables: Vec::new(),
                    assign: false,
                    commands,
                }))
            }
            Kind::Close | Kind::Pipe | Kind::Comma | Kind::Declare | Kind::Assign => {
                return Err(Fault::new(word.at, "unexpected operator in the action"));
            }
        };
        while let Some(Word {
            kind: Kind::Field(name),
            spaced: false,
            ..
        }) = self.words.get(self.next)
        {
            if matches!(base, Base::Function(_) | Base::Literal(_) | Base::Nil) {
                return Err(Fault::new(
                    self.words[self.next].at,
                    "unexpected field after a value that has none",
                ));
            }
            fields.push(name.clone());
            self.next += 1;
        }
        Ok(Operand {
            at: word.at,
            base,
            fields,
        })
    }
}
