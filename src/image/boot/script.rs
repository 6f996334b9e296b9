//! The syntax of GRUB's scripts (GRUB manual, section "Writing full configuration files"): words
//! with quoting and variables, commands with blocks, `if`, functions, loops.
//!
//! The parser takes any bytes: what does not fit the grammar ends the construct it stands in.

use super::too_much;
use crate::error::Result;

/// Deepest nesting of blocks.
const MAX_DEPTH: u32 = 64;

/// A piece of a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// Bytes as they are.
    Literal(Vec<u8>),
    /// A variable; outside of double quotes its value is split at blanks.
    Variable { name: Vec<u8>, quoted: bool },
}

pub(super) type Word = Vec<Part>;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(Word),
    /// `;` or a line end.
    End,
    Open,
    Close,
}

/// A statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Statement {
    /// Words, and the block after them (`menuentry`, `submenu`).
    Command(Vec<Word>, Option<Vec<Statement>>),
    /// Conditions with their branches; `else` has no condition.
    If(Vec<(Vec<Statement>, Vec<Statement>)>),
    /// A function's definition.
    Function(Word, Vec<Statement>),
}

/// Parses a whole file.
///
/// # Errors
/// Nested deeper than [`MAX_DEPTH`].
pub(super) fn parse(text: &[u8]) -> Result<Vec<Statement>> {
    let mut parser = Parser { tokens: tokens(text), at: 0 };
    let mut all = vec![];
    while parser.at < parser.tokens.len() {
        all.extend(parser.block(&[], 0)?);
        parser.at += 1; // a closing word without its opening one
    }
    Ok(all)
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    /// The keyword at the start of the next command.
    fn keyword(&self) -> Option<&[u8]> {
        match self.peek() {
            Some(Token::Word(word)) => match word.as_slice() {
                [Part::Literal(text)] => Some(text),
                _ => None,
            },
            _ => None,
        }
    }

    /// Statements until `}` or one of the keywords, which is left standing.
    fn block(&mut self, until: &[&[u8]], depth: u32) -> Result<Vec<Statement>> {
        if depth > MAX_DEPTH {
            return Err(too_much("blocks nested too deep"));
        }
        let mut statements = vec![];
        loop {
            match self.peek() {
                None | Some(Token::Close) => return Ok(statements),
                Some(Token::End) => self.at += 1,
                Some(Token::Open) => {
                    self.at += 1;
                    statements.extend(self.block(&[], depth + 1)?);
                    self.at += 1;
                }
                Some(Token::Word(_)) => {
                    let keyword = self.keyword().unwrap_or_default();
                    if until.contains(&keyword) {
                        return Ok(statements);
                    }
                    let statement = match keyword {
                        b"if" => self.conditional(depth)?,
                        b"function" => self.function(depth)?,
                        b"while" | b"until" | b"for" => {
                            // What a loop would set is not known here; it has no effect.
                            self.block_after(&[b"done"], depth)?;
                            continue;
                        }
                        _ => self.command(depth)?,
                    };
                    statements.push(statement);
                }
            }
        }
    }

    /// Skips the keyword, and returns the block up to and past one of `until`.
    fn block_after(&mut self, until: &[&[u8]], depth: u32) -> Result<Vec<Statement>> {
        self.at += 1;
        let block = self.block(until, depth + 1)?;
        if self.keyword().is_some_and(|k| until.contains(&k)) {
            self.at += 1;
        }
        Ok(block)
    }

    fn conditional(&mut self, depth: u32) -> Result<Statement> {
        let mut branches = vec![];
        self.at += 1;
        loop {
            let condition = self.block(&[b"then"], depth + 1)?;
            self.at += 1;
            let body = self.block(&[b"elif", b"else", b"fi"], depth + 1)?;
            branches.push((condition, body));
            match self.keyword() {
                Some(b"elif") => self.at += 1,
                Some(b"else") => {
                    branches.push((vec![], self.block_after(&[b"fi"], depth)?));
                    return Ok(Statement::If(branches));
                }
                Some(_) => {
                    self.at += 1;
                    return Ok(Statement::If(branches));
                }
                None => return Ok(Statement::If(branches)),
            }
        }
    }

    fn function(&mut self, depth: u32) -> Result<Statement> {
        self.at += 1;
        let name = match self.peek() {
            Some(Token::Word(word)) => word.clone(),
            _ => vec![],
        };
        let mut words = self.words();
        words.truncate(1);
        Ok(Statement::Function(name, self.braces(depth)?.unwrap_or_default()))
    }

    fn command(&mut self, depth: u32) -> Result<Statement> {
        let words = self.words();
        Ok(Statement::Command(words, self.braces(depth)?))
    }

    fn words(&mut self) -> Vec<Word> {
        let mut words = vec![];
        while let Some(Token::Word(word)) = self.peek() {
            words.push(word.clone());
            self.at += 1;
        }
        words
    }

    fn braces(&mut self, depth: u32) -> Result<Option<Vec<Statement>>> {
        if self.peek() != Some(&Token::Open) {
            return Ok(None);
        }
        self.at += 1;
        let block = self.block(&[], depth + 1)?;
        self.at += 1;
        Ok(Some(block))
    }
}

fn tokens(text: &[u8]) -> Vec<Token> {
    let mut lexer = Lexer { text, at: 0 };
    let mut tokens = vec![];
    while let Some(token) = lexer.next() {
        tokens.push(token);
    }
    tokens
}

struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
}

impl Lexer<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn take(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn next(&mut self) -> Option<Token> {
        loop {
            match self.peek()? {
                b' ' | b'\t' | b'\r' => self.at += 1,
                b'#' => {
                    while self.peek().is_some_and(|b| b != b'\n') {
                        self.at += 1;
                    }
                }
                b'\\' if self.text.get(self.at + 1) == Some(&b'\n') => self.at += 2,
                b'\n' | b';' | b'&' | b'|' => {
                    self.at += 1;
                    return Some(Token::End);
                }
                _ => break,
            }
        }
        let word = self.word();
        Some(match word.as_slice() {
            [Part::Literal(text)] if text == b"{" => Token::Open,
            [Part::Literal(text)] if text == b"}" => Token::Close,
            _ => Token::Word(word),
        })
    }

    fn word(&mut self) -> Word {
        let mut parts = vec![];
        let mut literal = vec![];
        // An empty pair of quotes is a word too.
        let mut quoted = false;
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' | b';' | b'&' | b'|' => break,
                b'\'' => {
                    self.at += 1;
                    quoted = true;
                    while let Some(byte) = self.take().filter(|&b| b != b'\'') {
                        literal.push(byte);
                    }
                }
                b'"' => {
                    self.at += 1;
                    quoted = true;
                    self.double_quoted(&mut literal, &mut parts);
                }
                b'\\' => {
                    self.at += 1;
                    match self.take() {
                        None | Some(b'\n') => {}
                        Some(byte) => literal.push(byte),
                    }
                }
                b'$' => self.variable(false, &mut literal, &mut parts),
                _ => {
                    self.at += 1;
                    literal.push(byte);
                }
            }
        }
        if !literal.is_empty() || (quoted && parts.is_empty()) {
            parts.push(Part::Literal(literal));
        }
        parts
    }

    fn double_quoted(&mut self, literal: &mut Vec<u8>, parts: &mut Word) {
        while let Some(byte) = self.peek() {
            match byte {
                b'"' => {
                    self.at += 1;
                    return;
                }
                b'$' => self.variable(true, literal, parts),
                b'\\' => {
                    self.at += 1;
                    match self.take() {
                        None | Some(b'\n') => {}
                        Some(byte @ (b'$' | b'"' | b'\\')) => literal.push(byte),
                        Some(byte) => literal.extend([b'\\', byte]),
                    }
                }
                _ => {
                    self.at += 1;
                    literal.push(byte);
                }
            }
        }
    }

    /// `$name`, `${name}`, `$1`, `$?`; a `$` before anything else stands for itself.
    fn variable(&mut self, quoted: bool, literal: &mut Vec<u8>, parts: &mut Word) {
        self.at += 1;
        let braced = self.peek() == Some(b'{');
        self.at += usize::from(braced);
        let start = self.at;
        while self.peek().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_') {
            self.at += 1;
        }
        if self.at == start && matches!(self.peek(), Some(b'?' | b'@' | b'*' | b'#')) {
            self.at += 1;
        }
        let name = self.text[start..self.at].to_vec();
        if braced && self.peek() == Some(b'}') {
            self.at += 1;
        }
        if name.is_empty() {
            literal.push(b'$');
            return;
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(std::mem::take(literal)));
        }
        parts.push(Part::Variable { name, quoted });
    }
}
