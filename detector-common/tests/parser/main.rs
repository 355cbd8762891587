//! The parser against dissectors that know nothing of it (etherparse, pnet), and against bytes that
//! no well-meaning sender would send.

mod encapsulation;
mod faults;
mod frames;
mod hostile;
mod plain;
mod request_line;
mod tunnel;
