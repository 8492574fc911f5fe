//! Which examples of a step share a sequence.

/// Bins of examples whose lengths add up to at most `limit`: the longest first, each into the fullest
/// bin that takes it (best-fit decreasing). One beyond the limit is alone. Each example is in exactly
/// one bin; equal lengths give equal bins.
pub(super) fn bins(lengths: &[usize], limit: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(lengths[i])); // stable: equal lengths keep their order
    let mut bins: Vec<(usize, Vec<usize>)> = Vec::new();
    for i in order {
        let fits = bins.iter_mut().filter(|(used, _)| used + lengths[i] <= limit);
        // The first of the fullest.
        match fits.reduce(|best, bin| if bin.0 > best.0 { bin } else { best }) {
            Some((used, members)) => {
                *used += lengths[i];
                members.push(i);
            }
            None => bins.push((lengths[i], vec![i])),
        }
    }
    let mut bins: Vec<Vec<usize>> = bins.into_iter().map(|(_, members)| members).collect();
    bins.iter_mut().for_each(|members| members.sort_unstable());
    bins.sort_unstable();
    bins
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_longest_choose_first_and_bins_are_in_the_order_of_the_rows() {
        assert_eq!(bins(&[3, 7, 2, 5, 9], 10), [vec![0, 1], vec![2, 3], vec![4]]);
        assert_eq!(bins(&[4, 4, 4], 8), [vec![0, 1], vec![2]]);
        assert_eq!(bins(&[20, 1], 10), [[0], [1]], "one beyond the limit is alone");
        assert_eq!(bins(&[], 10), [[0; 0]; 0]);
    }

    proptest! {
        #[test]
        fn each_is_in_one_bin_and_no_bin_is_too_long(
            lengths in prop::collection::vec(0usize..60, 0..40),
            limit in 1usize..64,
        ) {
            let bins = bins(&lengths, limit);
            let mut all = bins.concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..lengths.len()).collect::<Vec<_>>());
            for bin in &bins {
                let total: usize = bin.iter().map(|&i| lengths[i]).sum();
                prop_assert!(total <= limit || bin.len() == 1, "{:?} of {}", bin, total);
            }
            // No two bins could be one.
            let totals: Vec<usize> =
                bins.iter().map(|b| b.iter().map(|&i| lengths[i]).sum()).collect();
            for (i, a) in totals.iter().enumerate() {
                prop_assert!(totals[i + 1..].iter().all(|b| a + b > limit));
            }
        }
    }
}
