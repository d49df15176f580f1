//! Random queries, as we write them and as the oracle does.

use super::data::Windows;
use super::draw::Draw;
use super::expressions::Columns;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use std::sync::Arc;

/// A query, twice.
#[derive(Debug)]
pub(super) struct Query {
    /// Statements that write into the table `out`.
    pub(super) ours: String,
    pub(super) oracle: String,
    /// The columns of `out`.
    pub(super) columns: String,
    /// Tables that the oracle reads: events with their windows.
    pub(super) windows: Vec<(String, Windows)>,
}

impl Query {
    /// Returns the columns of `out` as Arrow types.
    pub(super) fn schema(&self) -> SchemaRef {
        let field = |(index, column): (usize, &str)| {
            let data_type = match column.split_once(' ').expect("a name and a type").1 {
                "BIGINT" => DataType::Int64,
                "DOUBLE" => DataType::Float64,
                "STRING" => DataType::Utf8,
                _ => DataType::Timestamp(TimeUnit::Millisecond, None),
            };
            Field::new(format!("c{index}"), data_type, true)
        };
        Arc::new(Schema::new(
            self.columns.split(", ").enumerate().map(field).collect::<Vec<_>>(),
        ))
    }
}

/// What a SELECT selects: expressions with their types.
#[derive(Clone, Default)]
struct Selected(Vec<(String, &'static str)>);

impl Selected {
    fn add(&mut self, expr: impl Into<String>, data_type: &'static str) -> &mut Self {
        self.0.push((expr.into(), data_type));
        self
    }

    fn list(&self) -> String {
        let column = |(index, (expr, _)): (usize, &(String, &str))| format!("{expr} AS c{index}");
        self.0.iter().enumerate().map(column).collect::<Vec<_>>().join(", ")
    }

    fn columns(&self) -> String {
        let column = |(index, (_, data_type)): (usize, &(String, &str))| format!("c{index} {data_type}");
        self.0.iter().enumerate().map(column).collect::<Vec<_>>().join(", ")
    }

    fn names(&self) -> String {
        (0..self.0.len())
            .map(|index| format!("c{index}"))
            .collect::<Vec<_>>()
            .join(", ")
    }
}

const TIME: &str = "TIMESTAMP(3)";

/// Adds some keys and some aggregates; returns the keys.
fn keys_and_aggregates(draw: &mut Draw, selected: &mut Selected, columns: &Columns, keys: &[&str]) -> Vec<String> {
    let mut grouped = Vec::new();
    for key in keys {
        if draw.once_in(2) {
            grouped.push((*key).to_owned());
            selected.add(*key, if *key == "g" { "STRING" } else { "BIGINT" });
        }
    }
    for _ in 0..=draw.below(4) {
        let (call, data_type) = columns.aggregate(draw);
        let call = if data_type == "BIGINT" {
            format!("CAST({call} AS BIGINT)")
        } else {
            call
        };
        selected.add(call, data_type);
    }
    grouped
}

/// Returns the same text for both engines.
fn same(select: &str, selected: &Selected) -> Query {
    Query {
        ours: format!("INSERT INTO out {select};"),
        oracle: select.to_owned(),
        columns: selected.columns(),
        windows: Vec::new(),
    }
}

/// A filter, perhaps.
fn filter(draw: &mut Draw, columns: &Columns) -> String {
    if draw.once_in(2) {
        return String::new();
    }
    format!(" WHERE {}", columns.condition(draw, 2))
}

fn having(draw: &mut Draw, columns: &Columns) -> String {
    if draw.once_in(2) {
        return String::new();
    }
    let number = columns.number(draw, 1);
    match draw.below(3) {
        0 => " HAVING COUNT(*) > 2".into(),
        1 => format!(" HAVING SUM({number}) > 10"),
        _ => format!(" HAVING MAX({number}) <> 7 OR COUNT(*) = 1"),
    }
}

/// Projections, filters, queries in queries, and unions.
pub(super) fn rows(draw: &mut Draw) -> Query {
    let columns = Columns::of_events("");
    let mut selected = Selected::default();
    for _ in 0..=draw.below(4) {
        if draw.once_in(3) {
            selected.add(columns.text(draw, 2), "STRING");
        } else {
            selected.add(columns.number(draw, 2), "BIGINT");
        }
    }
    selected.add("ts", TIME);
    let mut select = format!("SELECT {} FROM e{}", selected.list(), filter(draw, &columns));
    if draw.once_in(3) {
        select = format!("SELECT {} FROM ({select}) AS q WHERE c0 IS NOT NULL", selected.names());
    }
    if draw.once_in(2) {
        let others = Columns::of_others("");
        let mut more = Selected::default();
        for (_, data_type) in &selected.0 {
            match *data_type {
                "BIGINT" => more.add(others.number(draw, 1), "BIGINT"),
                "STRING" => more.add("'o'", "STRING"),
                _ => more.add("ts", TIME),
            };
        }
        select = format!(
            "{select} UNION ALL SELECT {} FROM o{}",
            more.list(),
            filter(draw, &others)
        );
    }
    same(&select, &selected)
}

/// Aggregations per window.
pub(super) fn windows(draw: &mut Draw) -> Query {
    let windows = Windows::draw(draw, true);
    let columns = Columns::of_events("");
    let mut selected = Selected::default();
    selected.add("window_start", TIME).add("window_end", TIME);
    let session = matches!(windows, Windows::Session { .. });
    let mut keys = Vec::new();
    if session {
        // Sessions are kept apart by this key.
        keys.push("k".to_owned());
        selected.add("k", "BIGINT");
    }
    keys.extend(keys_and_aggregates(
        draw,
        &mut selected,
        &columns,
        if session { &[] } else { &["k", "g"] },
    ));
    let keys: String = keys.iter().map(|key| format!(", {key}")).collect();
    // A filter above sessions would change them for us, who read its rows only.
    let filter = if session { String::new() } else { filter(draw, &columns) };
    let tail = format!(
        "{filter} GROUP BY window_start, window_end{keys}{}",
        having(draw, &columns)
    );
    let list = selected.list();
    Query {
        ours: format!("INSERT INTO out SELECT {list} FROM {}{tail};", windows.sql("e")),
        oracle: format!("SELECT {list} FROM w0{tail}"),
        columns: selected.columns(),
        windows: vec![("w0".into(), windows)],
    }
}

/// Aggregations of aggregations per window: by the same windows, and by longer ones.
pub(super) fn windows_over_windows(draw: &mut Draw) -> Query {
    let windows = Windows::draw(draw, false);
    let columns = Columns::of_events("");
    let call = format!(
        "CAST({} AS BIGINT)",
        draw.pick(&["COUNT(*)", "SUM(v)", "MAX(k)", "COUNT(DISTINCT g)"])
    );
    let filter = filter(draw, &columns);
    let inner = |from: &str| {
        format!(
            "SELECT window_start, window_end, window_time AS t, k, {call} AS n FROM {from}{filter}
             GROUP BY window_start, window_end, window_time, k"
        )
    };
    let mut selected = Selected::default();
    selected
        .add("window_start", TIME)
        .add("CAST(SUM(n) AS BIGINT)", "BIGINT")
        .add("MIN(n)", "BIGINT");
    selected.add("COUNT(*)", "BIGINT");
    let list = selected.list();
    let (ours, oracle) = if draw.once_in(2) {
        let outer = |from: &str| {
            format!(
                "SELECT {list} FROM ({}) AS q GROUP BY window_start, window_end",
                inner(from)
            )
        };
        (format!("INSERT INTO out {};", outer(&windows.sql("e"))), outer("w0"))
    } else {
        let size = draw.within(1, 30);
        let ours = format!(
            "CREATE VIEW small AS SELECT t, k, n FROM ({}) AS q;
             INSERT INTO out SELECT {list} FROM TABLE(TUMBLE(TABLE small, DESCRIPTOR(t), INTERVAL '{size}' SECOND))
             GROUP BY window_start, window_end;",
            inner(&windows.sql("e"))
        );
        let start = format!("date_bin(INTERVAL '{size} seconds', t, TIMESTAMP '1970-01-01T00:00:00')");
        let oracle = format!(
            "SELECT {} FROM (SELECT {start} AS window_start, n FROM ({}) AS q) AS p GROUP BY window_start",
            list,
            inner("w0")
        );
        (ours, oracle)
    };
    Query {
        ours,
        oracle,
        columns: selected.columns(),
        windows: vec![("w0".into(), windows)],
    }
}

/// Aggregations without a window.
pub(super) fn groups(draw: &mut Draw) -> Query {
    let columns = Columns::of_events("");
    let mut selected = Selected::default();
    if draw.once_in(6) {
        selected.add("k", "BIGINT").add("g", "STRING");
        let select = format!("SELECT DISTINCT {} FROM e{}", selected.list(), filter(draw, &columns));
        return same(&select, &selected);
    }
    let keys = keys_and_aggregates(draw, &mut selected, &columns, &["k", "g", "v"]);
    // Without a key there is a row in a batch, and none in a stream, when nothing comes.
    let filter = if keys.is_empty() {
        String::new()
    } else {
        filter(draw, &columns)
    };
    let by = if keys.is_empty() {
        String::new()
    } else {
        format!(" GROUP BY {}", keys.join(", "))
    };
    let select = format!(
        "SELECT {} FROM e{filter}{by}{}",
        selected.list(),
        having(draw, &columns)
    );
    same(&select, &selected)
}

/// Aggregations of results that change.
pub(super) fn groups_of_groups(draw: &mut Draw) -> Query {
    let columns = Columns::of_events("");
    let call = draw.pick(&["COUNT(*)", "SUM(v)", "MAX(v)", "MIN(id)", "COUNT(DISTINCT g)", "SUM(f)"]);
    let data_type = if *call == *"SUM(f)" { "DOUBLE" } else { "BIGINT" };
    let inner = format!(
        "SELECT k, v, CAST({call} AS {data_type}) AS n FROM e{} GROUP BY k, v{}",
        filter(draw, &columns),
        having(draw, &columns)
    );
    let mut selected = Selected::default();
    selected.add("k", "BIGINT");
    for _ in 0..=draw.below(3) {
        match draw.below(6) {
            0 => selected.add("COUNT(*)", "BIGINT"),
            1 => selected.add(format!("CAST(SUM(n) AS {data_type})"), data_type),
            2 => selected.add("MIN(n)", data_type),
            3 => selected.add("MAX(n)", data_type),
            4 => selected.add("COUNT(DISTINCT n)", "BIGINT"),
            _ => selected.add("CAST(SUM(v) AS BIGINT)", "BIGINT"),
        };
    }
    same(
        &format!("SELECT {} FROM ({inner}) AS q GROUP BY k", selected.list()),
        &selected,
    )
}

/// What joins select.
fn of_both(draw: &mut Draw) -> Selected {
    let mut selected = Selected::default();
    selected.add("e.id", "BIGINT").add("o.id", "BIGINT");
    let columns = Columns::of_events("e.").and(Columns::of_others("o."));
    if draw.once_in(2) {
        selected.add(columns.number(draw, 2), "BIGINT");
    }
    if draw.once_in(2) {
        selected.add("e.g", "STRING").add("o.ts", TIME);
    }
    selected
}

/// Inner joins without bounds.
pub(super) fn joins(draw: &mut Draw) -> Query {
    let both = Columns::of_events("e.").and(Columns::of_others("o."));
    let selected = of_both(draw);
    let list = selected.list();
    let residual = if draw.once_in(2) {
        format!(" AND {}", both.condition(draw, 1))
    } else {
        String::new()
    };
    let filter = filter(draw, &both);
    let select = match draw.below(3) {
        0 => format!("SELECT {list} FROM e JOIN o ON e.k = o.k{residual}{filter}"),
        1 => {
            let filter = filter.replacen(" WHERE ", " AND ", 1);
            format!("SELECT {list} FROM e, o WHERE e.k = o.k{residual}{filter}")
        }
        _ => format!("SELECT {list} FROM o INNER JOIN e ON o.k = e.k AND e.v = o.w{residual}{filter}"),
    };
    same(&select, &selected)
}

/// Joins of rows that are near in time.
pub(super) fn joins_in_time(draw: &mut Draw) -> Query {
    let both = Columns::of_events("e.").and(Columns::of_others("o."));
    let selected = of_both(draw);
    let list = selected.list();
    let (before, after) = (draw.within(0, 9), draw.within(0, 9));
    let bounds = match draw.below(3) {
        0 => format!("e.ts BETWEEN o.ts - INTERVAL '{before}' SECOND AND o.ts + INTERVAL '{after}' SECOND"),
        1 => format!("o.ts >= e.ts - INTERVAL '{before}' SECOND AND o.ts < e.ts + INTERVAL '{after}' SECOND"),
        _ => format!(
            "e.ts > o.ts + INTERVAL '{before}' SECOND AND e.ts <= o.ts + INTERVAL '{}' SECOND",
            before + after
        ),
    };
    let residual = if draw.once_in(2) {
        format!(" AND {}", both.condition(draw, 1))
    } else {
        String::new()
    };
    let kind = draw.pick(&["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]);
    same(
        &format!("SELECT {list} FROM e {kind} o ON e.k = o.k AND {bounds}{residual}"),
        &selected,
    )
}

/// Joins of the windows of both tables' rows.
pub(super) fn joins_of_windows(draw: &mut Draw) -> Query {
    let size = draw.within(1, 8);
    let kind = draw.pick(&["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]);
    let mut selected = Selected::default();
    selected
        .add("l.n", "BIGINT")
        .add("r.n", "BIGINT")
        .add("l.k", "BIGINT")
        .add("r.k", "BIGINT");
    let list = selected.list();
    let residual = draw.pick(&["", " AND l.n >= r.n", " AND l.n <> 2"]);
    let on = format!("l.window_start = r.window_start AND l.window_end = r.window_end AND l.k = r.k{residual}");
    let side = |table: &str| {
        format!(
            "SELECT window_start, window_end, k, COUNT(*) AS n
             FROM TABLE(TUMBLE(TABLE {table}, DESCRIPTOR(ts), INTERVAL '{size}' SECOND)) GROUP BY window_start, window_end, k"
        )
    };
    let binned = |table: &str| {
        let start = format!("date_bin(INTERVAL '{size} seconds', ts, TIMESTAMP '1970-01-01T00:00:00')");
        format!(
            "SELECT {start} AS window_start, {start} AS window_end, k, COUNT(*) AS n FROM {table} GROUP BY {start}, k"
        )
    };
    let select = |left: &str, right: &str| format!("SELECT {list} FROM ({left}) AS l {kind} ({right}) AS r ON {on}");
    Query {
        ours: format!("INSERT INTO out {};", select(&side("e"), &side("o"))),
        oracle: select(&binned("e"), &binned("o")),
        columns: selected.columns(),
        windows: Vec::new(),
    }
}

/// The best rows of each key, and the last or first.
pub(super) fn best_rows(draw: &mut Draw) -> Query {
    let columns = Columns::of_events("");
    let ranked = draw.once_in(2);
    let partition = draw.pick(&["PARTITION BY k ", "PARTITION BY g, k ", "PARTITION BY v "]);
    let first = draw.pick(&["f DESC", "f", "k, f DESC", "ts DESC", "ts"]);
    let order = format!("{first}, id{}", draw.pick(&["", " DESC"]));
    let most = draw.within(1, 5);
    let mut selected = Selected::default();
    selected.add("id", "BIGINT").add("g", "STRING").add("f", "DOUBLE");
    if ranked {
        selected.add("CAST(rn AS BIGINT)", "BIGINT");
    }
    let filter = filter(draw, &columns);
    let select = format!(
        "SELECT {} FROM (SELECT *, ROW_NUMBER() OVER ({partition}ORDER BY {order}) AS rn FROM e{filter}) AS q WHERE rn <= {most}",
        selected.list()
    );
    same(&select, &selected)
}

/// The best rows of each window.
pub(super) fn best_rows_of_windows(draw: &mut Draw) -> Query {
    let windows = Windows::draw(draw, false);
    let most = draw.within(1, 4);
    let order = draw.pick(&["f DESC, id", "f, id DESC", "v, id"]);
    let order = if order.starts_with('v') {
        "COALESCE(v, 0), id"
    } else {
        order
    };
    let mut selected = Selected::default();
    selected
        .add("id", "BIGINT")
        .add("window_end", TIME)
        .add("CAST(rn AS BIGINT)", "BIGINT");
    let key = draw.pick(&["", ", k", ", g"]);
    let select = |from: &str| {
        format!(
            "SELECT {} FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY window_start, window_end{key} ORDER BY {order}) AS rn
             FROM {from}) AS q WHERE rn <= {most}",
            selected.list()
        )
    };
    Query {
        ours: format!("INSERT INTO out {};", select(&windows.sql("e"))),
        oracle: select("w0"),
        columns: selected.columns(),
        windows: vec![("w0".into(), windows)],
    }
}

/// Aggregates over the rows before each row.
pub(super) fn over(draw: &mut Draw) -> Query {
    let mut selected = Selected::default();
    selected.add("id", "BIGINT");
    // Frames of rows need an order without ties; the oracle and we may else begin with different ones.
    let frame = match draw.below(3) {
        0 => format!(
            "RANGE BETWEEN INTERVAL '{}' SECOND PRECEDING AND CURRENT ROW",
            draw.within(0, 12)
        ),
        1 => "RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW".to_owned(),
        _ => String::new(),
    };
    let partition = draw.pick(&["PARTITION BY k ", "PARTITION BY k, g ", ""]);
    let window = format!(
        "OVER ({partition}ORDER BY ts{}{frame})",
        if frame.is_empty() { "" } else { " " }
    );
    for _ in 0..=draw.below(3) {
        match draw.below(6) {
            0 => selected.add(format!("COUNT(*) {window}"), "BIGINT"),
            1 => selected.add(format!("CAST(SUM(v) {window} AS BIGINT)"), "BIGINT"),
            2 => selected.add(format!("CAST(MIN(v) {window} AS BIGINT)"), "BIGINT"),
            3 => selected.add(format!("CAST(MAX(v) {window} AS BIGINT)"), "BIGINT"),
            4 => selected.add(format!("SUM(f) {window}"), "DOUBLE"),
            _ => selected.add(format!("COUNT(v) {window}"), "BIGINT"),
        };
    }
    same(&format!("SELECT {} FROM e", selected.list()), &selected)
}
