//! What commands print: columns as kubectl and istioctl align them, JSON, YAML.

pub mod age;
pub mod yaml;

use serde_json::Value;

/// The value of `-o`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Wide,
    Json,
    Yaml,
    Name,
}

/// Rows under headers, three spaces between columns, the last column unpadded.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new<const N: usize>(headers: [&str; N]) -> Table {
        Table {
            rows: vec![headers.iter().map(ToString::to_string).collect()],
        }
    }

    pub fn with_headers(headers: Vec<String>) -> Table {
        Table {
            rows: vec![headers],
        }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = impl Into<String>>) {
        self.rows
            .push(cells.into_iter().map(|cell| clean(&cell.into())).collect());
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                if column + 1 == row.len() {
                    line.push_str(cell);
                } else {
                    line.push_str(&format!("{cell:<width$}   ", width = widths[column]));
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// What a peer or a user wrote must not move the terminal's cursor.
fn clean(text: &str) -> String {
    text.chars()
        .map(|one| if one.is_control() { ' ' } else { one })
        .collect()
}

/// Prints a value as JSON or YAML.
pub fn print(value: &Value, format: Format) {
    match format {
        Format::Yaml => print!("{}", yaml::write(value)),
        _ => println!("{value:#}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(["NAME", "AGE"]);
        table.row(["a-long-name", "5s"]);
        table.row(["b\u{1b}[2J", "6s"]);
        let want = "NAME          AGE\na-long-name   5s\nb [2J         6s\n";
        assert_eq!(
            table.to_string(),
            want,
            "padded, and without control characters"
        );
    }
}
