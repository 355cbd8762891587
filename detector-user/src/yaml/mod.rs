//! Files that people write: YAML text -> spanned tree -> typed raw documents, with every mistake
//! placed at its line, column and field.
//!
//! ```text
//! text --node--> Node (values with places) --typed--> serde types with Field<T> --checks--> model
//!                                                      `--> problem (collected, not first only)
//! ```
//! serde stops at the first error and forgets where a value stood. So the text becomes a [`Node`]
//! tree first, and a small serde `Deserializer` over it records what it must refuse and goes on.

mod document;
mod field;
#[cfg(test)]
pub(crate) mod golden;
mod keyed;
mod node;
mod one_or_many;
mod problem;
mod read;
mod scalar;
mod typed;
mod word_or_map;

pub use document::kind;
pub use field::Field;
pub use keyed::Keyed;
pub use node::{Key, MAX_FILE_BYTES, Node, Value, parse};
pub use one_or_many::OneOrMany;
pub use problem::{Place, Problem, Problems, did_you_mean, one_of};
pub use read::{read, read_regular, read_trusted};
pub(crate) use scalar::scalar;
pub use scalar::{ByteSize, Cidr, Name, Period, Scalar};
pub use typed::typed;
pub use word_or_map::WordOrMap;
