//! Line charts whose lines are labelled where they end.

use std::ops::Range;

use plotters::chart::{ChartBuilder, ChartContext};
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::element::{Circle, DashedPathElement, PathElement, TriangleMarker};
use plotters::prelude::{Cartesian2d, SVGBackend};
use plotters::style::text_anchor::{HPos, VPos};
use plotters::style::{Color, RGBColor, ShapeStyle};

use super::palette::{GRID, INK, INK_SOFT};
use super::{Canvas, DrawError, Figure, LABEL_SIZE, bold, draw_title, style, text_width};

const SIZE: (u32, u32) = (900, 500);
const TOP: i32 = 72;
const LEFT: i32 = 78;
const BOTTOM: i32 = 56;
/// Between the end of a line and its label.
const LABEL_GAP: i32 = 10;

/// A line chart.
#[derive(Clone, Debug)]
pub(crate) struct LineChart {
    pub(crate) name: &'static str,
    pub(crate) title: String,
    pub(crate) subtitle: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) lines: Vec<Line>,
    pub(crate) marks: Vec<Mark>,
}

/// An axis.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    label: String,
    logarithmic: bool,
    range: Range<f64>,
    /// Where a number stands.
    ticks: Vec<f64>,
    format: fn(f64) -> String,
}

/// A line through points, with a label at its end.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) label: String,
    pub(crate) colour: RGBColor,
    pub(crate) stroke: Stroke,
    /// By ascending x.
    pub(crate) points: Vec<(f64, f64)>,
}

/// How a line is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stroke {
    Solid,
    Dashed,
}

/// A single point worth a remark, such as the paper's figure.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    pub(crate) label: String,
    pub(crate) colour: RGBColor,
    pub(crate) at: (f64, f64),
    /// Whether the remark stands below at the right, instead of above at the left.
    pub(crate) below: bool,
}

impl Axis {
    /// An axis from the first to the last of these ticks.
    pub(crate) fn linear(
        label: impl Into<String>,
        ticks: impl IntoIterator<Item = f64>,
        format: fn(f64) -> String,
    ) -> Self {
        let ticks: Vec<f64> = ticks.into_iter().collect();
        let first = ticks.first().copied().unwrap_or(0.0);
        let last = ticks.last().copied().unwrap_or(1.0);
        Self {
            label: label.into(),
            logarithmic: false,
            range: first..last,
            ticks,
            format,
        }
    }

    /// A logarithmic axis with ticks at powers of ten.
    pub(crate) fn logarithmic(
        label: impl Into<String>,
        range: Range<f64>,
        format: fn(f64) -> String,
    ) -> Self {
        let (first, last) = (range.start.log10(), range.end.log10());
        let ticks = (first.ceil() as i32..=last.floor() as i32).map(f64::from);
        Self {
            label: label.into(),
            logarithmic: true,
            range: first..last,
            ticks: ticks.collect(),
            format,
        }
    }

    /// Adds room beyond the last tick, in parts of the range.
    pub(crate) fn with_room(mut self, part: f64) -> Self {
        self.range.end += part * (self.range.end - self.range.start);
        self
    }

    fn place(&self, value: f64) -> f64 {
        let place = if self.logarithmic {
            value.log10()
        } else {
            value
        };
        place.clamp(self.range.start, self.range.end)
    }

    fn text(&self, place: f64) -> String {
        (self.format)(if self.logarithmic {
            10_f64.powf(place)
        } else {
            place
        })
    }

    fn coordinates(&self) -> Ticks {
        Ticks {
            range: self.range.clone(),
            ticks: self.ticks.clone(),
        }
    }
}

impl LineChart {
    /// Draws the chart.
    pub(crate) fn draw(&self) -> Figure {
        Figure::draw(self.name, SIZE, |canvas| self.draw_on(canvas))
    }

    fn draw_on<'a>(&self, canvas: &Canvas<'a>) -> Result<(), DrawError<'a>> {
        draw_title(canvas, &self.title, &self.subtitle)?;
        let longest = self
            .lines
            .iter()
            .map(|line| text_width(&line.label, LABEL_SIZE));
        let right = longest.max().unwrap_or(0) + LABEL_GAP + 16;
        let mut chart = ChartBuilder::on(canvas)
            .margin_top(TOP)
            .margin_right(right)
            .margin_left(10)
            .margin_bottom(8)
            .x_label_area_size(BOTTOM)
            .y_label_area_size(LEFT)
            .build_cartesian_2d(self.x.coordinates(), self.y.coordinates())?;
        chart
            .configure_mesh()
            .bold_line_style(GRID)
            .light_line_style(GRID.mix(0.0))
            .axis_style(INK_SOFT)
            .label_style(style(LABEL_SIZE, INK, (HPos::Left, VPos::Top)))
            .axis_desc_style(style(LABEL_SIZE, INK_SOFT, (HPos::Left, VPos::Top)))
            .x_desc(self.x.label.as_str())
            .y_desc(self.y.label.as_str())
            .x_label_formatter(&|place| self.x.text(*place))
            .y_label_formatter(&|place| self.y.text(*place))
            .draw()?;
        // Dashed lines on top: where two lines lie on each other both are seen.
        for stroke in [Stroke::Solid, Stroke::Dashed] {
            for line in self.lines.iter().filter(|line| line.stroke == stroke) {
                self.draw_line(&mut chart, line)?;
            }
        }
        for mark in &self.marks {
            self.draw_mark(canvas, &mut chart, mark)?;
        }
        self.draw_labels(canvas, &chart)
    }

    fn draw_line<'a>(&self, chart: &mut Chart<'a, '_>, line: &Line) -> Result<(), DrawError<'a>> {
        let places: Vec<(f64, f64)> = line
            .points
            .iter()
            .map(|&(x, y)| (self.x.place(x), self.y.place(y)))
            .collect();
        let stroke = line.colour.stroke_width(2);
        match line.stroke {
            Stroke::Solid => {
                chart.draw_series([PathElement::new(places.clone(), stroke)])?;
            }
            Stroke::Dashed => {
                let dashes = DashedPathElement::new(places.clone(), 7, 5, stroke);
                chart.draw_series([dashes])?;
            }
        }
        let filled = ShapeStyle::from(&line.colour).filled();
        chart.draw_series(
            places
                .into_iter()
                .map(|place| Circle::new(place, 3, filled)),
        )?;
        Ok(())
    }

    fn draw_mark<'a>(
        &self,
        canvas: &Canvas<'a>,
        chart: &mut Chart<'a, '_>,
        mark: &Mark,
    ) -> Result<(), DrawError<'a>> {
        let place = (self.x.place(mark.at.0), self.y.place(mark.at.1));
        let filled = ShapeStyle::from(&mark.colour).filled();
        chart.draw_series([TriangleMarker::new(place, 8, filled)])?;
        let (x, y) = chart.backend_coord(&place);
        let (anchor, place) = if mark.below {
            ((HPos::Left, VPos::Top), (x + 10, y + 6))
        } else {
            ((HPos::Right, VPos::Bottom), (x - 10, y - 6))
        };
        canvas.draw_text(&mark.label, &bold(LABEL_SIZE, mark.colour, anchor), place)
    }

    /// Labels the lines at their ends, moved apart where they would overlap.
    fn draw_labels<'a>(
        &self,
        canvas: &Canvas<'a>,
        chart: &Chart<'a, '_>,
    ) -> Result<(), DrawError<'a>> {
        let mut labels: Vec<(i32, i32, &Line)> = self
            .lines
            .iter()
            .filter_map(|line| {
                let &(x, y) = line.points.last()?;
                let (x, y) = chart.backend_coord(&(self.x.place(x), self.y.place(y)));
                Some((x, y, line))
            })
            .collect();
        labels.sort_by_key(|&(_, y, _)| y);
        let heights: Vec<i32> = labels.iter().map(|&(_, y, _)| y).collect();
        let bottom = SIZE.1 as i32 - BOTTOM;
        let spread = spread_out(&heights, LABEL_SIZE as i32 + 5, TOP..bottom);
        let right = chart.plotting_area().get_pixel_range().0.end;
        for (&(x, _, line), y) in labels.iter().zip(spread) {
            // Labels of lines that end early stand beside the others.
            let x = x.max(right) + LABEL_GAP;
            let text = style(LABEL_SIZE, line.colour, (HPos::Left, VPos::Center));
            canvas.draw_text(&line.label, &text, (x, y))?;
        }
        Ok(())
    }
}

type Chart<'a, 'b> = ChartContext<'b, SVGBackend<'a>, Cartesian2d<Ticks, Ticks>>;

/// A coordinate with ticks where we want them.
#[derive(Clone, Debug)]
struct Ticks {
    range: Range<f64>,
    ticks: Vec<f64>,
}

impl Ranged for Ticks {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, place: &f64, (first, last): (i32, i32)) -> i32 {
        let part = (place - self.range.start) / (self.range.end - self.range.start);
        first + (part * f64::from(last - first)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() {
            vec![]
        } else {
            self.ticks.clone()
        }
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

/// Moves ascending places apart by at least `gap`, as little as possible, within bounds if they fit.
fn spread_out(places: &[i32], gap: i32, bounds: Range<i32>) -> Vec<i32> {
    // Groups of places that touch: first, count, and the sum of wished firsts.
    let mut groups: Vec<(i32, i32, i32)> = vec![];
    for &place in places {
        let mut group = (place, 1, place);
        while let Some(&before) = groups.last() {
            if before.0 + before.1 * gap <= group.0 {
                break;
            }
            groups.pop();
            let wished = before.2 + group.2 - before.1 * group.1 * gap;
            let count = before.1 + group.1;
            let most = bounds.end - (count - 1) * gap;
            group = (
                (wished / count).clamp(bounds.start, most.max(bounds.start)),
                count,
                wished,
            );
        }
        groups.push(group);
    }
    let spread = |(first, count, _): (i32, i32, i32)| (0..count).map(move |i| first + i * gap);
    groups.into_iter().flat_map(spread).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_moved_apart_and_no_further() {
        assert_eq!(spread_out(&[10, 50], 20, 0..100), [10, 50]);
        assert_eq!(spread_out(&[50, 50], 20, 0..100), [40, 60]);
        assert_eq!(spread_out(&[50, 52, 54], 20, 0..100), [32, 52, 72]);
        assert_eq!(spread_out(&[0, 0, 90], 20, 0..100), [0, 20, 90]);
        assert_eq!(spread_out(&[100, 100], 20, 0..100), [80, 100]);
        assert!(spread_out(&[], 20, 0..100).is_empty());
    }
}
