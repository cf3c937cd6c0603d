//! Dockerfile text to a tree with spans: pure.
//!
//! [`parse`] takes the text of a Dockerfile (docker's language as of frontend 1.26) and gives a [`Dockerfile`]:
//! the parser directives, the `ARG`s before the first `FROM`, and the stages with their instructions, each typed
//! and with its place in the text. All instructions and flags are recognised here, also those that a builder may
//! refuse; a flag that does not exist, a word too many or a bad duration is a [`SyntaxError`] with a place and,
//! where one can be guessed, a hint. Up to [`MAX_ERRORS`] errors are gathered in one pass.
//!
//! Variables are not expanded by the parser, since their values depend on the stage: [`Expand`] is the pure
//! function that the builder calls per instruction, with all modifiers (`${a:-b}`, `${a##*/}`, `${a//x/y}`).
//!
//! Bounds, since the text may be hostile: [`MAX_SIZE`] bytes, [`MAX_INSTRUCTIONS`] instructions, [`MAX_WORDS`]
//! words in one instruction, [`MAX_NESTING`] levels of `${}`; all passes are linear in the text, and the result
//! of an expansion is bounded by its caller.

#![forbid(unsafe_code)]

mod check;
mod expand;
mod heredoc;
mod instruction;
mod lines;
mod mount;
mod nodes;
mod parse;
mod pattern;
mod suggest;
mod syntax;
mod tree;
mod words;

pub use check::CheckDirective;
pub use expand::{Expand, Quotes, Unset};
pub use mount::{Mount, MountKind, Sharing};
#[doc(hidden)]
pub use nodes::{Node, nodes};
pub use parse::{parse, parse_some, parse_trigger};
pub use suggest::suggest;
pub use syntax::{Syntax, is_builtin_frontend};
pub use tree::{
    ArgDefinition, Command, Copy, Dockerfile, Flag, Form, Healthcheck, Heredoc, Instruction, MountFlag,
    Network, Op, Pair, Run, Security, Stage, Warning,
};

pub use dhow_types::{Span, SyntaxError};

/// Largest Dockerfile that is read: 10 MiB.
pub const MAX_SIZE: usize = 10 << 20;
/// Most instructions in one Dockerfile.
pub const MAX_INSTRUCTIONS: usize = 20_000;
/// Most words in one instruction.
pub const MAX_WORDS: usize = 1 << 16;
/// Deepest nesting of `${a:-${b:-...}}`.
pub const MAX_NESTING: usize = 64;
/// Most errors that one pass reports.
pub const MAX_ERRORS: usize = 16;
