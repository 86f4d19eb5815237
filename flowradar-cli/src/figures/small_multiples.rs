//! Small multiples: the same chart several times, on the same scales, for comparison.

use plotters::chart::ChartBuilder;
use plotters::element::{DashedPathElement, PathElement};
use plotters::style::text_anchor::{HPos, VPos};
use plotters::style::{Color, RGBColor};

use super::palette::{GRID, INK, INK_SOFT};
use super::{Canvas, DrawError, Figure, LABEL_SIZE, bold, draw_title, style, text_width};

const WIDTH: u32 = 1000;
const COLUMNS: usize = 3;
const PANEL_HEIGHT: u32 = 200;
const TOP: u32 = 92;
const TICK_LABEL_SIZE: u32 = 12;

/// Panels with lines.
#[derive(Clone, Debug)]
pub(crate) struct SmallMultiples {
    pub(crate) name: &'static str,
    pub(crate) title: String,
    pub(crate) subtitle: String,
    pub(crate) x_label: &'static str,
    /// What the lines of all panels are, with their colours.
    pub(crate) legend: Vec<(String, RGBColor)>,
    pub(crate) panels: Vec<Panel>,
    /// A value that is drawn dashed across all panels, and what it is.
    pub(crate) level: Option<(f64, String)>,
}

/// One chart of several.
#[derive(Clone, Debug)]
pub(crate) struct Panel {
    pub(crate) title: String,
    /// By the order of the legend; each by ascending x.
    pub(crate) lines: Vec<Vec<(f64, f64)>>,
}

impl SmallMultiples {
    /// Draws the figure.
    pub(crate) fn draw(&self) -> Figure {
        let rows = self.panels.len().div_ceil(COLUMNS).max(1);
        let size = (WIDTH, TOP + rows as u32 * PANEL_HEIGHT + 8);
        Figure::draw(self.name, size, |canvas| self.draw_on(canvas, rows))
    }

    fn draw_on<'a>(&self, canvas: &Canvas<'a>, rows: usize) -> Result<(), DrawError<'a>> {
        draw_title(canvas, &self.title, &self.subtitle)?;
        self.draw_legend(canvas)?;
        let points = || {
            self.panels
                .iter()
                .flat_map(|panel| panel.lines.iter().flatten())
        };
        let most = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, f64::max);
        let x_most = most(&mut points().map(|point| point.0)).max(f64::MIN_POSITIVE);
        let y_most = most(&mut points().map(|point| point.1));
        let level = self.level.as_ref().map_or(0.0, |(level, _)| *level);
        let y_most = (y_most.max(level) * 1.05).max(f64::MIN_POSITIVE);
        let (_, below) = canvas.split_vertically(TOP);
        let areas = below.split_evenly((rows, COLUMNS));
        for (area, panel) in areas.iter().zip(&self.panels) {
            self.draw_panel(area, panel, x_most, y_most)?;
        }
        Ok(())
    }

    fn draw_panel<'a>(
        &self,
        area: &Canvas<'a>,
        panel: &Panel,
        x_most: f64,
        y_most: f64,
    ) -> Result<(), DrawError<'a>> {
        let top_left = (HPos::Left, VPos::Top);
        area.draw_text(&panel.title, &bold(LABEL_SIZE, INK, top_left), (58, 0))?;
        let mut chart = ChartBuilder::on(area)
            .margin_top(22)
            .margin_right(14)
            .margin_left(4)
            .margin_bottom(4)
            .x_label_area_size(38)
            .y_label_area_size(52)
            .build_cartesian_2d(0.0..x_most, 0.0..y_most)?;
        chart
            .configure_mesh()
            .bold_line_style(GRID)
            .light_line_style(GRID.mix(0.0))
            .axis_style(INK_SOFT)
            .x_labels(5)
            .y_labels(5)
            .label_style(style(TICK_LABEL_SIZE, INK, top_left))
            .axis_desc_style(style(TICK_LABEL_SIZE, INK_SOFT, top_left))
            .x_desc(self.x_label)
            .x_label_formatter(&|x| short_number(*x))
            .y_label_formatter(&|y| short_number(*y))
            .draw()?;
        if let Some((level, _)) = self.level {
            let line = vec![(0.0, level), (x_most, level)];
            let dashes = DashedPathElement::new(line, 5, 5, INK_SOFT.stroke_width(1));
            chart.draw_series([dashes])?;
        }
        for (line, (_, colour)) in panel.lines.iter().zip(&self.legend) {
            let stroke = colour.mix(0.9).stroke_width(2);
            chart.draw_series([PathElement::new(line.clone(), stroke)])?;
        }
        Ok(())
    }

    fn draw_legend<'a>(&self, canvas: &Canvas<'a>) -> Result<(), DrawError<'a>> {
        let y = TOP as i32 - 24;
        let mut x = 16;
        let level = self
            .level
            .iter()
            .map(|(_, label)| (label.clone(), INK_SOFT));
        for (label, colour) in self.legend.iter().cloned().chain(level) {
            let stroke = colour.stroke_width(3);
            canvas.draw(&PathElement::new(vec![(x, y), (x + 18, y)], stroke))?;
            let text = style(LABEL_SIZE, INK, (HPos::Left, VPos::Center));
            canvas.draw_text(&label, &text, (x + 24, y))?;
            x += 24 + text_width(&label, LABEL_SIZE) + 22;
        }
        Ok(())
    }
}

/// A number as a label: `1.5k`.
fn short_number(number: f64) -> String {
    let (scaled, unit) = match number.abs() {
        size if size >= 1e6 => (number / 1e6, "M"),
        size if size >= 1e3 => (number / 1e3, "k"),
        _ => (number, ""),
    };
    let rounded = (scaled * 100.0).round() / 100.0;
    format!("{rounded}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_panel_is_drawn_on_the_same_scale() {
        let panel = |title: &str, most: f64| Panel {
            title: title.into(),
            lines: vec![
                vec![(0.0, 0.0), (10.0, most)],
                vec![(0.0, 1.0), (10.0, 1.0)],
            ],
        };
        let figure = SmallMultiples {
            name: "test",
            title: "Loads".into(),
            subtitle: "in packets".into(),
            x_label: "s",
            legend: vec![
                ("server x".into(), super::super::BLUE),
                ("server y".into(), super::super::GREEN),
            ],
            panels: vec![panel("first", 10.0), panel("second", 2000.0)],
            level: Some((1500.0, "capacity".into())),
        }
        .draw();
        for text in ["first", "second", "server x", "server y", "capacity"] {
            assert_eq!(figure.svg().matches(text).count(), 1, "{text}");
        }
        assert_eq!(figure.svg().matches("2k").count(), 2, "{}", figure.svg());
    }

    #[test]
    fn numbers_are_short() {
        let texts = [0.0, 0.25, 999.0, 1500.0, 2e6].map(short_number);
        assert_eq!(texts, ["0", "0.25", "999", "1.5k", "2M"]);
    }
}
