//! Rows into statements of few sizes, so that the database parses each once and keeps it.

/// Rows of one statement, the most first.
const SIZES: [usize; 5] = [256, 64, 16, 4, 1];

/// All of `rows` in order, in parts of [`SIZES`].
pub(super) fn shaped<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let size = *SIZES.iter().find(|size| **size <= rows.len())?;
        let (part, rest) = rows.split_at(size);
        rows = rest;
        Some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_in_one_part_and_sizes_are_few() {
        for n in 0..1000 {
            let rows: Vec<usize> = (0..n).collect();
            let parts: Vec<&[usize]> = shaped(&rows).collect();
            assert_eq!(parts.concat(), rows);
            assert!(parts.iter().all(|p| SIZES.contains(&p.len())), "{n}");
            assert!(parts.len() <= n / 256 + 12, "{n}");
        }
    }
}
