//! The rules by which space is chosen, one by one and against random fragments.

use super::*;
use proptest::prelude::*;

const MIB: u64 = EXTENT_BYTES;

/// Extents given in MiB.
fn mib(parts: &[(u64, u64)]) -> Vec<Extent> {
    parts
        .iter()
        .map(|(offset, length)| extent(offset * MIB, length * MIB))
        .collect()
}

#[test]
fn tightest_hole_wins() {
    let free = mib(&[(0, 8), (10, 3), (20, 4)]);
    assert_eq!(choose(&free, 3 * MIB), Some(mib(&[(10, 3)])));
    assert_eq!(choose(&free, 2 * MIB), Some(mib(&[(10, 2)])));
    assert_eq!(choose(&free, 4 * MIB), Some(mib(&[(20, 4)])));
}

#[test]
fn lower_of_equal_holes_wins() {
    let free = mib(&[(0, 1), (4, 2), (8, 2)]);
    assert_eq!(choose(&free, 2 * MIB), Some(mib(&[(4, 2)])));
}

#[test]
fn largest_holes_are_used_up_first_when_none_fits() {
    let free = mib(&[(0, 2), (5, 4), (10, 1), (20, 3)]);
    assert_eq!(choose(&free, 6 * MIB), Some(mib(&[(0, 2), (5, 4)])));
    assert_eq!(choose(&free, 5 * MIB), Some(mib(&[(5, 4), (10, 1)])));
}

#[test]
fn exactly_all_space_can_be_had_and_not_a_byte_more() {
    let free = mib(&[(0, 2), (5, 4)]);
    assert_eq!(choose(&free, 6 * MIB), Some(free.clone()));
    assert_eq!(choose(&free, 6 * MIB + 1), None);
    assert_eq!(choose(&[], MIB), None);
    assert_eq!(choose(&free, u64::MAX), None);
}

#[test]
fn growth_takes_the_neighbour_before_anything_else() {
    let free = mib(&[(2, 3), (10, 1)]);
    let volume = mib(&[(7, 1), (0, 2)]);
    assert_eq!(
        lengthen(&volume, &free, 2 * MIB),
        Some(mib(&[(7, 1), (0, 4)]))
    );
    assert_eq!(
        lengthen(&volume, &free, 4 * MIB),
        Some(mib(&[(7, 1), (0, 5), (10, 1)]))
    );
    assert_eq!(lengthen(&volume, &free, 0), Some(volume.clone()));
    assert_eq!(lengthen(&volume, &free, 5 * MIB), None);
}

#[test]
fn growth_never_touches_what_lies_before_the_end() {
    // Free space follows the first extent, but a volume goes on at its end.
    let free = mib(&[(1, 2)]);
    let volume = mib(&[(0, 1), (8, 1)]);
    assert_eq!(
        lengthen(&volume, &free, MIB),
        Some(mib(&[(0, 1), (8, 1), (1, 1)]))
    );
}

#[test]
fn front_is_split_off_across_extents() {
    let list = mib(&[(5, 2), (0, 3)]);
    assert_eq!(
        split_front(&list, 3 * MIB),
        (mib(&[(5, 2), (0, 1)]), mib(&[(1, 2)]))
    );
    assert_eq!(split_front(&list, 9 * MIB), (list.clone(), vec![]));
    assert_eq!(split_front(&list, 0), (vec![], list));
}

#[test]
fn extent_off_grid_or_out_of_bounds_is_refused() {
    let refuse =
        |offset, length| check_extents(&[extent(offset, length)], 6 * MIB, 10 * MIB).unwrap_err();
    assert!(refuse(6 * MIB + 512, MIB).contains("grid"));
    assert!(refuse(6 * MIB, MIB + 512).contains("grid"));
    assert!(refuse(6 * MIB, 0).contains("grid"));
    assert!(refuse(5 * MIB, MIB).contains("outside"));
    assert!(refuse(9 * MIB, 2 * MIB).contains("outside"));
    assert!(refuse(u64::MAX - MIB + 1, MIB).contains("outside"));
    assert!(refuse(6 * MIB, u64::MAX - MIB + 1).contains("outside"));
    check_extents(&mib(&[(6, 4), (6, 1)]), 6 * MIB, 10 * MIB).unwrap();
}

/// Disjoint holes in address order, with gaps between them.
fn holes() -> impl Strategy<Value = Vec<Extent>> {
    proptest::collection::vec((1_u64..5, 1_u64..9), 0..12).prop_map(|parts| {
        let mut at = 0;
        let mut holes = Vec::new();
        for (gap, length) in parts {
            holes.push(extent((at + gap) * MIB, length * MIB));
            at += gap + length;
        }
        holes
    })
}

fn is_inside(part: &Extent, holes: &[Extent]) -> bool {
    holes
        .iter()
        .any(|hole| hole.offset_bytes <= part.offset_bytes && end(part) <= end(hole))
}

proptest! {
    #[test]
    fn choice_is_free_space_of_the_right_size(free in holes(), need in 1_u64..60) {
        let need = need * MIB;
        match choose(&free, need) {
            None => prop_assert!(total(&free) < need),
            Some(chosen) => {
                prop_assert_eq!(total(&chosen), need);
                prop_assert!(chosen.iter().all(|part| is_inside(part, &free)));
                prop_assert!(chosen.windows(2).all(|pair| end(&pair[0]) <= pair[1].offset_bytes));
                if free.iter().any(|hole| hole.length_bytes >= need) {
                    prop_assert_eq!(chosen.len(), 1);
                }
            }
        }
    }

    #[test]
    fn free_is_exactly_what_is_not_used(used in holes()) {
        let (start, limit) = (0, 200 * MIB);
        let free = free_extents(start, limit, used.iter().rev().copied().collect());
        prop_assert_eq!(total(&free) + total(&used), limit - start);
        prop_assert_eq!(free_extents(start, limit, free), used);
    }

    #[test]
    fn front_and_rest_are_the_whole(list in holes(), limit in 0_u64..60) {
        let (front, rest) = split_front(&list, limit * MIB);
        prop_assert_eq!(total(&front), total(&list).min(limit * MIB));
        prop_assert_eq!(total(&front) + total(&rest), total(&list));
        prop_assert!(rest.len() <= list.len() && front.len() <= list.len());
    }
}
