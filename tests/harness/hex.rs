//! Bytes as hexadecimal digits.

/// Writes each byte as two lower-case digits.
pub fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
