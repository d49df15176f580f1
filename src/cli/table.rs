//! Text in columns.

/// Writes rows below titles, in columns as wide as they need to be.
pub(super) fn table(titles: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut cells: Vec<Vec<String>> = vec![titles.iter().map(|title| (*title).to_owned()).collect()];
    cells.extend(rows);
    let widths: Vec<usize> = (0..titles.len())
        .map(|at| cells.iter().map(|row| row[at].chars().count()).max().unwrap_or(0))
        .collect();
    let line = |row: &Vec<String>| {
        let padded: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:<width$}"))
            .collect();
        padded.join("  ").trim_end().to_owned()
    };
    cells.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        let rows = vec![row(["long-name", "1"]), row(["b", "-"])];
        assert_eq!(table(&["NAME", "N"], rows), "NAME       N\nlong-name  1\nb          -");
    }
}
