//! The live view on a terminal: from plain cells to its screen.

use ratatui::{
    Frame,
    layout::{Alignment, Constraint, Layout, Rect},
    style::{Color, Modifier, Style as Look},
    text::{Line, Span},
    widgets::{Block, Borders, Cell as Field, Paragraph, Row, Table, TableState, Wrap},
};

use crate::cli::text::{Cell, Style};

/// Most frontends that are shown above the servers.
const MOST_FRONTENDS: u16 = 6;

/// Lines of a server's detail, its frame among them.
const DETAIL: u16 = 11;

/// Widths of the columns after the first, which has what is left: 78 with that at 80 columns.
const WIDTHS: [u16; 7] = [11, 7, 7, 7, 7, 7, 8];

/// Everything that is to be seen.
#[derive(Debug, Default)]
pub struct Picture {
    /// What runs, in a line.
    pub headline: Vec<Cell>,
    /// What is wrong with it as a whole, a line each.
    pub problems: Vec<String>,
    /// A row for each frontend.
    pub frontends: Vec<Vec<Cell>>,
    /// Titles of the columns of servers.
    pub titles: Vec<String>,
    /// A row for each server.
    pub servers: Vec<Vec<Cell>>,
    /// The row that is chosen.
    pub selected: usize,
    /// What is told of that server: its name, and labels with values.
    pub detail: Option<(String, Vec<(&'static str, Cell)>)>,
    /// What keys do.
    pub keys: String,
}

/// Titles of the columns of frontends.
const FRONTENDS: [&str; 8] = [
    "FRONTEND", "STATE", "CONNS", "CONN/S", "FAIL/S", "IN/S", "OUT/S", "P90 MS",
];

/// Draws it.
pub fn draw(picture: &Picture, frame: &mut Frame<'_>) {
    let lines = |count: usize| u16::try_from(count).unwrap_or(u16::MAX);
    let frontends = lines(picture.frontends.len()).min(MOST_FRONTENDS);
    let detail = if picture.detail.is_some() { DETAIL } else { 0 };
    let [head, problems, above, servers, below, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(lines(picture.problems.len())),
        Constraint::Length(frontends + 2),
        Constraint::Min(3),
        Constraint::Length(detail),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let headline: Vec<Span<'_>> = picture.headline.iter().map(span).collect();
    frame.render_widget(Paragraph::new(Line::from(headline)), head);
    let said: Vec<Line<'_>> = picture
        .problems
        .iter()
        .map(|line| Line::styled(line.as_str(), look(Style::Bad)))
        .collect();
    frame.render_widget(Paragraph::new(said), problems);
    let titles: Vec<String> = FRONTENDS.iter().map(|title| (*title).to_owned()).collect();
    table(frame, above, &titles, &picture.frontends, None);
    table(
        frame,
        servers,
        &picture.titles,
        &picture.servers,
        Some(picture.selected),
    );
    if let Some((name, facts)) = &picture.detail {
        self::detail(frame, below, name, facts);
    }
    frame.render_widget(
        Paragraph::new(Line::styled(picture.keys.as_str(), look(Style::Dim))),
        keys,
    );
}

fn table(frame: &mut Frame<'_>, area: Rect, titles: &[String], rows: &[Vec<Cell>], selected: Option<usize>) {
    let aligned = |at: usize, line: Line<'static>| {
        // names and states to the left, numbers to the right
        let alignment = if at < 2 { Alignment::Left } else { Alignment::Right };
        Field::from(line.alignment(alignment))
    };
    let heading = titles
        .iter()
        .enumerate()
        .map(|(at, title)| aligned(at, Line::styled(title.clone(), look(Style::Bold))));
    let heading = Row::new(heading.collect::<Vec<_>>());
    let rows = rows.iter().map(|cells| {
        let fields = cells.iter().enumerate();
        Row::new(
            fields
                .map(|(at, cell)| aligned(at, Line::styled(cell.text().to_owned(), look(cell.style()))))
                .collect::<Vec<_>>(),
        )
    });
    let widths = std::iter::once(Constraint::Min(16)).chain(WIDTHS.map(Constraint::Length));
    let table = Table::new(rows, widths)
        .header(heading)
        .row_highlight_style(Look::new().add_modifier(Modifier::REVERSED));
    // the chosen row is scrolled to
    let mut state = TableState::new().with_selected(selected);
    frame.render_stateful_widget(table, area, &mut state);
}

fn detail(frame: &mut Frame<'_>, area: Rect, name: &str, facts: &[(&'static str, Cell)]) {
    let lines: Vec<Line<'_>> = (facts.iter())
        .map(|(label, value)| {
            Line::from(vec![
                Span::styled(format!("{label:12} "), look(Style::Dim)),
                span(value),
            ])
        })
        .collect();
    let block = Block::new()
        .borders(Borders::TOP)
        .title(Span::styled(format!(" {name} "), look(Style::Bold)));
    frame.render_widget(
        Paragraph::new(lines).wrap(Wrap { trim: false }).block(block),
        area,
    );
}

fn span(cell: &Cell) -> Span<'_> {
    Span::styled(cell.text(), look(cell.style()))
}

const fn look(style: Style) -> Look {
    let look = Look::new();
    match style {
        Style::Plain => look,
        Style::Bold => look.add_modifier(Modifier::BOLD),
        Style::Dim => look.add_modifier(Modifier::DIM),
        Style::Good => look.fg(Color::Green),
        Style::Notice => look.fg(Color::Yellow),
        Style::Bad => look.fg(Color::Red).add_modifier(Modifier::BOLD),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::{Terminal, backend::TestBackend};

    /// The screen's lines.
    fn screen(picture: &Picture, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a screen");
        terminal.draw(|frame| draw(picture, frame)).expect("drawn");
        let buffer = terminal.backend().buffer().clone();
        let line = |y| {
            let cells = (0..width).filter_map(|x| buffer.cell((x, y)));
            let text: String = cells.map(|cell| cell.symbol().to_owned()).collect();
            text.trim_end().to_owned()
        };
        (0..height).map(line).collect()
    }

    fn picture(servers: usize) -> Picture {
        let row = |name: &str| {
            let numbers = ["up", "12", "3.4", "0.0", "1.5 kB", "20 MB", "999.9"];
            std::iter::once(name)
                .chain(numbers)
                .map(Cell::plain)
                .collect::<Vec<_>>()
        };
        Picture {
            headline: vec![Cell::plain("convey 1.0.0  running")],
            titles: [
                "SERVER", "STATE", "CONNS", "CONN/S", "FAIL/S", "IN/S", "OUT/S", "P90 MS",
            ]
            .map(str::to_owned)
            .to_vec(),
            frontends: vec![row("web")],
            servers: (0..servers).map(|n| row(&format!("web/server-{n:03}"))).collect(),
            keys: "q quit".to_owned(),
            ..Picture::default()
        }
    }

    #[test]
    fn eighty_columns_have_room_for_everything() {
        let lines = screen(&picture(3), 80, 24);
        assert_eq!(lines[0], "convey 1.0.0  running");
        assert!(
            lines[1].starts_with("FRONTEND") && lines[1].ends_with("P90 MS"),
            "{lines:#?}"
        );
        let server = lines
            .iter()
            .find(|line| line.contains("server-002"))
            .expect("the server");
        assert_eq!(
            server.split_whitespace().collect::<Vec<_>>().join(" "),
            "web/server-002 up 12 3.4 0.0 1.5 kB 20 MB 999.9"
        );
        assert_eq!(lines[23], "q quit");
    }

    #[test]
    fn the_chosen_server_is_always_seen_with_its_detail_below() {
        let mut picture = picture(200);
        picture.selected = 150;
        let name = picture.servers[150][0].text().to_owned();
        picture.detail = Some((name, vec![("address", Cell::plain("10.0.0.1:80"))]));
        let lines = screen(&picture, 100, 24);
        assert_eq!(
            lines.iter().filter(|line| line.contains("server-150")).count(),
            2,
            "{lines:#?}"
        );
        assert!(
            lines
                .iter()
                .any(|line| line.starts_with("address      10.0.0.1:80")),
            "{lines:#?}"
        );
    }

    #[test]
    fn a_small_terminal_breaks_nothing() {
        for (width, height) in [(1, 1), (20, 3), (40, 8), (300, 100)] {
            screen(&picture(5), width, height);
        }
    }
}
