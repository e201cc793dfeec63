//! The sizes of the parts in which a definition is stored (contract 4.1).

/// Maximum number of parts of a definition that the server accepts.
pub(super) const MOST_PARTS: usize = 10_000;

/// Minimum size of a part in bytes. Requests with smaller parts consist mostly of headers.
pub const SMALLEST_PART: usize = 1 << 10;

/// Maximum size of a part in bytes. Its base64 form stays below the 50 million characters that the server's parser accepts in one
/// string, and the request far below `http.max_content_length`.
pub const LARGEST_PART: usize = 35 << 20;

/// Size of a part in bytes: the requested size, or a larger one if 10,000 parts of that size cannot hold the definition. `None` if
/// even the maximum size is too small.
pub(super) fn part_size(length: usize, wanted: usize) -> Option<usize> {
    let size = wanted.max(length.div_ceil(MOST_PARTS));
    (size <= LARGEST_PART).then_some(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_size_grows_for_more_than_ten_thousand_parts() {
        const MIB: usize = 1 << 20;
        let fits = |length: usize, size: usize| length.div_ceil(size) <= MOST_PARTS;
        assert_eq!(part_size(1, MIB), Some(MIB));
        assert_eq!(part_size(10_000 * MIB, MIB), Some(MIB));
        for length in [10_000 * MIB + 1, 20_000 * MIB, 50 << 30, 10_000 * LARGEST_PART] {
            let size = part_size(length, MIB).unwrap();
            assert!(size > MIB && fits(length, size) && !fits(length, size - 1), "{length}");
        }
        assert_eq!(part_size(10_000 * LARGEST_PART + 1, MIB), None);
    }

    #[test]
    fn largest_part_fits_the_server_parser() {
        assert!(LARGEST_PART.div_ceil(3) * 4 < 50_000_000);
    }
}
