//! Random expressions that both engines read alike.

use super::draw::Draw;

/// What columns there are, by type, as both engines write them.
#[derive(Clone, Debug)]
pub(super) struct Columns {
    pub(super) numbers: Vec<String>,
    pub(super) texts: Vec<String>,
    pub(super) floats: Vec<String>,
}

impl Columns {
    /// Returns those of the events, with a prefix such as `e.`.
    pub(super) fn of_events(prefix: &str) -> Self {
        let named = |names: &[&str]| names.iter().map(|name| format!("{prefix}{name}")).collect();
        Self {
            numbers: named(&["id", "k", "v"]),
            texts: named(&["g"]),
            floats: named(&["f"]),
        }
    }

    pub(super) fn of_others(prefix: &str) -> Self {
        let named = |names: &[&str]| names.iter().map(|name| format!("{prefix}{name}")).collect();
        Self {
            numbers: named(&["id", "k", "w"]),
            texts: Vec::new(),
            floats: Vec::new(),
        }
    }

    pub(super) fn and(mut self, other: Self) -> Self {
        self.numbers.extend(other.numbers);
        self.texts.extend(other.texts);
        self.floats.extend(other.floats);
        self
    }

    fn one(draw: &mut Draw, of: &[String]) -> String {
        of[draw.below(of.len() as u64) as usize].clone()
    }

    /// Returns a whole number, 64 bits wide.
    pub(super) fn number(&self, draw: &mut Draw, depth: u32) -> String {
        if depth == 0 || draw.once_in(3) {
            return match draw.below(5) {
                0 => format!("CAST({} AS BIGINT)", draw.within(0, 50)),
                _ => format!("CAST({} AS BIGINT)", Self::one(draw, &self.numbers)),
            };
        }
        let a = self.number(draw, depth - 1);
        let b = self.number(draw, depth - 1);
        match draw.below(9) {
            0 => format!("({a} + {b})"),
            1 => format!("({a} - {b})"),
            2 => format!("({a} * CAST(3 AS BIGINT))"),
            3 => format!("({a} % CAST(7 AS BIGINT))"),
            4 => format!("ABS({a})"),
            5 => format!("COALESCE({a}, {b})"),
            6 => format!("CASE WHEN {} THEN {a} ELSE {b} END", self.condition(draw, depth - 1)),
            7 => format!("NULLIF({a}, {b})"),
            _ if self.texts.is_empty() => format!("(-{a})"),
            _ => format!("CAST(CHAR_LENGTH({}) AS BIGINT)", self.text(draw, depth - 1)),
        }
    }

    /// Returns a text.
    pub(super) fn text(&self, draw: &mut Draw, depth: u32) -> String {
        if self.texts.is_empty() {
            return "'none'".into();
        }
        let text = Self::one(draw, &self.texts);
        if depth == 0 {
            return text;
        }
        match draw.below(6) {
            0 => format!("UPPER({text})"),
            1 => format!("({text} || '-x')"),
            2 => format!("SUBSTRING({text} FROM 1 FOR 1)"),
            3 => format!("COALESCE({text}, 'none')"),
            4 => format!(
                "CASE WHEN {} THEN {text} ELSE 'other' END",
                self.condition(draw, depth - 1)
            ),
            _ => text,
        }
    }

    /// Returns a condition.
    pub(super) fn condition(&self, draw: &mut Draw, depth: u32) -> String {
        if depth > 0 && draw.once_in(3) {
            let (a, b) = (self.condition(draw, depth - 1), self.condition(draw, depth - 1));
            return match draw.below(3) {
                0 => format!("({a} AND {b})"),
                1 => format!("({a} OR {b})"),
                _ => format!("(NOT {a})"),
            };
        }
        let number = self.number(draw, depth.saturating_sub(1));
        match draw.below(if self.texts.is_empty() { 5 } else { 7 }) {
            0 => format!("{number} IS NULL"),
            1 => format!("{number} IN (1, 2, 3, 5, 8)"),
            2 => format!("{number} BETWEEN 3 AND {}", draw.within(3, 60)),
            3 | 4 => {
                let operator = draw.pick(&["<", "<=", ">", ">=", "=", "<>"]);
                format!("{number} {operator} {}", self.number(draw, depth.saturating_sub(1)))
            }
            5 => format!("{} LIKE 'a%'", self.text(draw, 0)),
            _ => format!("{} = 'b'", self.text(draw, depth.saturating_sub(1))),
        }
    }

    /// Returns an aggregate and its type.
    pub(super) fn aggregate(&self, draw: &mut Draw) -> (String, &'static str) {
        let number = self.number(draw, 1);
        let (call, data_type) = match draw.below(if self.texts.is_empty() { 6 } else { 10 }) {
            0 => ("COUNT(*)".to_owned(), "BIGINT"),
            1 => (format!("COUNT({number})"), "BIGINT"),
            2 => (format!("SUM({number})"), "BIGINT"),
            3 => (format!("MIN({number})"), "BIGINT"),
            4 => (format!("MAX({number})"), "BIGINT"),
            5 => (format!("COUNT(DISTINCT {number})"), "BIGINT"),
            6 => (format!("SUM({})", Self::one(draw, &self.floats)), "DOUBLE"),
            7 => (format!("AVG({})", Self::one(draw, &self.floats)), "DOUBLE"),
            8 => (format!("MIN({})", self.text(draw, 1)), "STRING"),
            _ => (format!("COUNT(DISTINCT {})", self.text(draw, 1)), "BIGINT"),
        };
        if draw.once_in(4) {
            let filter = self.condition(draw, 1);
            return (format!("{call} FILTER (WHERE {filter})"), data_type);
        }
        (call, data_type)
    }
}
