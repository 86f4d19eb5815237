//! Horizontal bars made of parts, with their values written in or beside them.

use plotters::element::Rectangle;
use plotters::style::text_anchor::{HPos, VPos};
use plotters::style::{RGBColor, ShapeStyle};

use super::palette::{INK, INK_SOFT, PAPER};
use super::{Canvas, DrawError, Figure, LABEL_SIZE, bold, draw_title, style, text_width};

const WIDTH: u32 = 900;
const TOP: i32 = 76;
const BAR: i32 = 34;
const ROW: i32 = 52;
const LEGEND: i32 = 34;

/// A chart of horizontal bars.
#[derive(Clone, Debug)]
pub(crate) struct BarChart {
    pub(crate) name: &'static str,
    pub(crate) title: String,
    pub(crate) subtitle: String,
    pub(crate) bars: Vec<Bar>,
    /// What each colour means; for bars of one part leave it empty.
    pub(crate) legend: Vec<(RGBColor, &'static str)>,
}

/// A bar.
#[derive(Clone, Debug)]
pub(crate) struct Bar {
    pub(crate) label: String,
    pub(crate) parts: Vec<BarPart>,
    /// Written behind the bar.
    pub(crate) note: String,
}

/// Part of a bar.
#[derive(Clone, Debug)]
pub(crate) struct BarPart {
    pub(crate) value: f64,
    pub(crate) colour: RGBColor,
    /// Written in the part if there is room.
    pub(crate) text: String,
}

impl Bar {
    /// A bar of one part.
    pub(crate) fn plain(
        label: impl Into<String>,
        value: f64,
        colour: RGBColor,
        note: impl Into<String>,
    ) -> Self {
        Self {
            label: label.into(),
            parts: vec![BarPart {
                value,
                colour,
                text: String::new(),
            }],
            note: note.into(),
        }
    }

    fn length(&self) -> f64 {
        self.parts.iter().map(|part| part.value).sum()
    }
}

impl BarChart {
    /// Draws the chart.
    pub(crate) fn draw(&self) -> Figure {
        let legend = if self.legend.is_empty() { 0 } else { LEGEND };
        let height = TOP + ROW * self.bars.len() as i32 + legend + 12;
        Figure::draw(self.name, (WIDTH, height as u32), |canvas| {
            self.draw_on(canvas)
        })
    }

    fn draw_on<'a>(&self, canvas: &Canvas<'a>) -> Result<(), DrawError<'a>> {
        draw_title(canvas, &self.title, &self.subtitle)?;
        let widest = |width: &dyn Fn(&Bar) -> i32| self.bars.iter().map(width).max().unwrap_or(0);
        let left = 16 + widest(&|bar| text_width(&bar.label, LABEL_SIZE)) + 14;
        let right = WIDTH as i32 - 16 - widest(&|bar| text_width(&bar.note, LABEL_SIZE)) - 10;
        let longest = self
            .bars
            .iter()
            .map(Bar::length)
            .fold(f64::MIN_POSITIVE, f64::max);
        let pixels = |value: f64| (value / longest * f64::from(right - left)).round() as i32;
        for (bar, top) in self.bars.iter().zip((TOP..).step_by(ROW as usize)) {
            let middle = top + BAR / 2;
            let label = style(LABEL_SIZE, INK, (HPos::Right, VPos::Center));
            canvas.draw_text(&bar.label, &label, (left - 10, middle))?;
            let (mut x, mut value) = (left, 0.0);
            for part in &bar.parts {
                value += part.value;
                let end = left + pixels(value);
                let filled = ShapeStyle::from(&part.colour).filled();
                if end > x {
                    canvas.draw(&Rectangle::new([(x, top), (end, top + BAR)], filled))?;
                }
                if text_width(&part.text, LABEL_SIZE) + 8 < end - x {
                    let inside = (HPos::Center, VPos::Center);
                    let inside = bold(LABEL_SIZE, on(part.colour), inside);
                    canvas.draw_text(&part.text, &inside, ((x + end) / 2, middle))?;
                }
                x = end;
            }
            let note = style(LABEL_SIZE, INK, (HPos::Left, VPos::Center));
            canvas.draw_text(&bar.note, &note, (x + 8, middle))?;
        }
        let mut x = 16;
        let y = TOP + ROW * self.bars.len() as i32 + 8;
        for &(colour, meaning) in &self.legend {
            let filled = ShapeStyle::from(&colour).filled();
            canvas.draw(&Rectangle::new([(x, y), (x + 14, y + 14)], filled))?;
            let text = style(LABEL_SIZE, INK_SOFT, (HPos::Left, VPos::Center));
            canvas.draw_text(meaning, &text, (x + 20, y + 7))?;
            x += 20 + text_width(meaning, LABEL_SIZE) + 24;
        }
        Ok(())
    }
}

/// Black or white, whichever is easier to read on this colour. Pure black and no ink: the page's
/// style must not turn it around.
fn on(colour: RGBColor) -> RGBColor {
    let RGBColor(red, green, blue) = colour;
    let brightness = 299 * u32::from(red) + 587 * u32::from(green) + 114 * u32::from(blue);
    if brightness > 140_000 {
        RGBColor(0, 0, 0)
    } else {
        PAPER
    }
}
