//! The kernel programs as they were when this library was built.

/// This library was built by plain `cargo build` in a tree where the kernel programs had not been
/// built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("built without the kernel programs; run `cargo xtask build`")]
pub struct NotBuilt;

#[cfg(kernel_programs)]
static OBJECT: Option<&[u8]> = Some(aya::include_bytes_aligned!(env!("DETECTOR_BPF_OBJECT")));
#[cfg(not(kernel_programs))]
static OBJECT: Option<&[u8]> = None;

/// The ELF object with the XDP and the TC programs, aligned as aya's loader wants it.
pub fn embedded() -> Result<&'static [u8], NotBuilt> {
    OBJECT.ok_or(NotBuilt)
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_embedded_is_a_bpf_elf_object() {
        match super::embedded() {
            Ok(object) => {
                assert_eq!(&object[..4], b"\x7fELF");
                // e_machine, little endian: EM_BPF.
                assert_eq!(u16::from_le_bytes([object[18], object[19]]), 247);
                assert_eq!(object.as_ptr().align_offset(8), 0, "aya parses it in place");
            }
            Err(error) => assert!(error.to_string().contains("cargo xtask build")),
        }
    }
}
