//! Which board this machine is: DMI strings against every board's `[match]` table.
//!
//! One image serves a family of machines; the box chooses when it boots. Strings are compared whole, because
//! vendors' product names contain each other (`apu2`, `PC Engines apu2`). A board that asks for more strings wins
//! over one that asks for fewer; a board without `[match]` is the fallback for every other machine.

use super::Board;

/// What the machine's firmware says about it (SMBIOS types 1 and 2), empty where it says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dmi {
    /// Manufacturer of the system.
    pub vendor: String,
    /// Product name of the system.
    pub product: String,
    /// Product name of the mainboard.
    pub board: String,
}

/// What a board file asks for; each list names alternatives, an empty one accepts everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BoardMatch {
    /// Accepted manufacturers.
    pub dmi_vendor: Vec<String>,
    /// Accepted products.
    pub dmi_product: Vec<String>,
    /// Accepted mainboards.
    pub dmi_board: Vec<String>,
}

impl BoardMatch {
    /// Whether this is for any machine.
    #[must_use]
    pub fn is_fallback(&self) -> bool {
        self.specificity() == 0
    }

    /// How many strings it asks for.
    #[must_use]
    pub fn specificity(&self) -> usize {
        [&self.dmi_vendor, &self.dmi_product, &self.dmi_board].iter().filter(|list| !list.is_empty()).count()
    }

    /// Whether the machine is one of these.
    #[must_use]
    pub fn accepts(&self, dmi: &Dmi) -> bool {
        let wanted = [&self.dmi_vendor, &self.dmi_product, &self.dmi_board];
        let found = [&dmi.vendor, &dmi.product, &dmi.board];
        let fits = |(list, text): (&Vec<String>, &String)| list.is_empty() || list.contains(text);
        wanted.into_iter().zip(found).all(fits)
    }
}

/// The board of this machine: the one named by `wish`, else the most specific that accepts the machine, of equals
/// the first by name. A wish for a board that is not there is ignored.
#[must_use]
pub fn choose<'a>(boards: &'a [Board], dmi: &Dmi, wish: Option<&str>) -> Option<&'a Board> {
    let named = wish.and_then(|name| boards.iter().find(|board| board.name == name));
    named.or_else(|| {
        let fitting = boards.iter().filter(|board| board.matching.accepts(dmi));
        fitting.min_by_key(|board| (std::cmp::Reverse(board.matching.specificity()), board.name.as_str()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board(name: &str, vendor: &[&str], product: &[&str], mainboard: &[&str]) -> Board {
        let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect();
        let matching = BoardMatch {
            dmi_vendor: words(vendor),
            dmi_product: words(product),
            dmi_board: words(mainboard),
        };
        Board { name: name.to_owned(), matching, ..Board::default() }
    }

    fn dmi(vendor: &str, product: &str, board: &str) -> Dmi {
        Dmi { vendor: vendor.into(), product: product.into(), board: board.into() }
    }

    #[track_caller]
    fn check(dmi: &Dmi, wish: Option<&str>, expect: &str) {
        let boards = [
            board("apu", &["PC Engines"], &[], &["apu2", "PC Engines apu2"]),
            board("generic", &[], &[], &[]),
            board("other-pc-engines", &["PC Engines"], &[], &[]),
            board("vault", &["Protectli"], &["VP2420"], &[]),
        ];
        assert_eq!(choose(&boards, dmi, wish).map(|board| board.name.as_str()), Some(expect));
    }

    #[test]
    fn the_most_specific_board_wins_and_the_rest_is_generic() {
        check(&dmi("PC Engines", "apu2", "apu2"), None, "apu");
        check(&dmi("PC Engines", "PC Engines apu2", "PC Engines apu2"), None, "apu");
        check(&dmi("PC Engines", "apu6", "apu6"), None, "other-pc-engines");
        check(&dmi("Protectli", "VP2420", ""), None, "vault");
        check(&dmi("Protectli", "VP24200", "VP2420"), None, "generic");
        check(&dmi("", "", ""), None, "generic");
    }

    #[test]
    fn a_wish_wins_if_it_can_be_fulfilled() {
        check(&dmi("Protectli", "VP2420", ""), Some("apu"), "apu");
        check(&dmi("Protectli", "VP2420", ""), Some("vualt"), "vault");
    }

    #[test]
    fn without_a_fitting_board_there_is_none() {
        assert_eq!(choose(&[board("a", &["x"], &[], &[])], &Dmi::default(), None), None);
        assert_eq!(choose(&[], &Dmi::default(), None), None);
    }
}
