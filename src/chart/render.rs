//! From a scene to bytes: SVG text and PNG pixels, both through plotters' backends.
//!
//! Invariant: the same scene and theme give the same bytes, on every machine: integer coordinates, an embedded font, no
//! time stamp.

use super::font;
use super::scene::{Anchor, Point, Scene, Shape, TextBox};
use super::theme::{Ink, Theme};
use plotters::prelude::{BitMapBackend, DrawingBackend, RGBAColor, SVGBackend};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontDesc, FontFamily, FontStyle, ShapeStyle, TextStyle};
use plotters_backend::DrawingErrorKind;

/// plotters takes whole pixels only, so SVG is drawn this much larger and scaled by its view box.
const SVG_SCALE: f64 = 10.0;
/// Pixels of a PNG per unit of the scene.
const PNG_SCALE: usize = 2;
/// Pixels drawn per pixel kept, along each side: smooth edges.
const SAMPLES: usize = 2;

/// The scene as an SVG document, its description inside.
#[must_use]
pub(super) fn svg(scene: &Scene, theme: &Theme, title: &str, alt: &str) -> String {
    let size = pixels(scene.size, SVG_SCALE);
    let mut body = String::new();
    let mut pen = Pen { backend: SVGBackend::with_string(&mut body, size), scale: SVG_SCALE, theme };
    pen.vector(scene).and_then(|()| pen.backend.present()).expect("writing into a string cannot fail");
    drop(pen);
    finish_svg(&body, scene, title, alt)
}

/// plotters' document with a view box in scene units, descriptions, dashes and tidy texts. plotters writes one element
/// per line and cannot say any of these.
fn finish_svg(body: &str, scene: &Scene, title: &str, alt: &str) -> String {
    let (wide, high) = scene.size;
    let (drawn_wide, drawn_high) = pixels(scene.size, SVG_SCALE);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{wide:.0}\" height=\"{high:.0}\" \
         viewBox=\"0 0 {drawn_wide} {drawn_high}\" role=\"img\" aria-label=\"{0}\">\n\
         <title>{1}</title>\n<desc>{0}</desc>\n",
        escape(alt),
        escape(title)
    );
    let mut dashes = scene.shapes.iter().filter_map(|shape| match shape {
        Shape::Path { dash, .. } => Some(*dash),
        _ => None,
    });
    // The paper is the first rectangle.
    let mut rects = [None].into_iter().chain(scene.shapes.iter().filter_map(|shape| match shape {
        Shape::Rect { .. } => Some(None),
        Shape::Cells { cells, .. } => Some(Some(cells)),
        _ => None,
    }));
    let mut lines = body.lines().skip(1);
    while let Some(line) = lines.next() {
        if let Some(rest) = line.strip_prefix("<polyline ") {
            let dash: Vec<String> =
                dashes.next().unwrap_or_default().iter().map(|length| format!("{:.0}", length * SVG_SCALE)).collect();
            out.push_str("<polyline stroke-linejoin=\"round\" ");
            if !dash.is_empty() {
                out.push_str(&format!("stroke-dasharray=\"{}\" ", dash.join(" ")));
            }
            out.push_str(rest);
        } else if let Some(cells) = line.strip_prefix("<rect ").and_then(|_| rects.next().flatten()) {
            let colour = line.split("fill=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
            out.push_str(&format!("<path shape-rendering=\"crispEdges\" fill=\"{colour}\" d=\"{}\"/>", outline(cells)));
        } else if line.starts_with("<text ") {
            out.push_str(line);
            out.extend(lines.next());
            out.extend(lines.next());
        } else {
            out.push_str(line);
        }
        out.push('\n');
    }
    out
}

/// Rectangles as one path, each drawn from its upper left corner.
fn outline(cells: &[(Point, Point)]) -> String {
    let mut path = String::new();
    for (from, to) in cells {
        let [x, y, wide, high] =
            [from.0, from.1, to.0 - from.0, to.1 - from.1].map(|length| (length * SVG_SCALE).round() as i64);
        path.push_str(&format!("M{x} {y}h{wide}v{high}h-{wide}z"));
    }
    path
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The scene as a PNG file, [`PNG_SCALE`] pixels per unit.
#[must_use]
pub(super) fn png(scene: &Scene, theme: &Theme) -> Vec<u8> {
    let scale = (PNG_SCALE * SAMPLES) as f64;
    let (wide, high) = pixels(scene.size, scale);
    let mut buffer = vec![0; wide as usize * high as usize * 3];
    let backend = BitMapBackend::with_buffer(&mut buffer, (wide, high));
    let mut pen = Pen { backend, scale, theme };
    pen.bitmap(scene).and_then(|()| pen.backend.present()).expect("drawing into memory cannot fail");
    drop(pen);
    let small = shrink(&buffer, wide as usize);
    encode(&small, wide as usize / SAMPLES, high as usize / SAMPLES)
}

/// Averages every square of [`SAMPLES`] pixels.
fn shrink(large: &[u8], wide: usize) -> Vec<u8> {
    let row = wide * 3;
    let mut small = Vec::with_capacity(large.len() / (SAMPLES * SAMPLES));
    let mut sums = vec![0u16; row / SAMPLES];
    for rows in large.chunks_exact(row * SAMPLES) {
        sums.fill((SAMPLES * SAMPLES / 2) as u16);
        for line in rows.chunks_exact(row) {
            for (sum, samples) in sums.chunks_exact_mut(3).zip(line.chunks_exact(3 * SAMPLES)) {
                for pixel in samples.chunks_exact(3) {
                    sum.iter_mut().zip(pixel).for_each(|(sum, channel)| *sum += u16::from(*channel));
                }
            }
        }
        small.extend(sums.iter().map(|sum| (sum / (SAMPLES * SAMPLES) as u16) as u8));
    }
    small
}

fn encode(pixels: &[u8], wide: usize, high: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, wide as u32, high as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    // Large flat areas come out smallest, and soonest, without a filter.
    encoder.set_filter(png::FilterType::NoFilter);
    encoder.set_compression(png::Compression::Default);
    let written = encoder.write_header().and_then(|mut writer| writer.write_image_data(pixels));
    written.expect("writing into memory cannot fail");
    bytes
}

fn pixels(size: Point, scale: f64) -> (u32, u32) {
    ((size.0 * scale).round() as u32, (size.1 * scale).round() as u32)
}

/// A backend with a scale and colours.
struct Pen<'a, B: DrawingBackend> {
    backend: B,
    scale: f64,
    theme: &'a Theme,
}

type Drawn<B> = Result<(), DrawingErrorKind<<B as DrawingBackend>::ErrorType>>;

impl<B: DrawingBackend> Pen<'_, B> {
    /// For backends with paths of their own.
    fn vector(&mut self, scene: &Scene) -> Drawn<B> {
        self.paper(scene)?;
        for shape in &scene.shapes {
            match shape {
                Shape::Path { points, width, ink, .. } => {
                    let style = ShapeStyle { stroke_width: self.length(*width), ..self.style(*ink, 1.0) };
                    let points: Vec<_> = points.iter().map(|point| self.at(*point)).collect();
                    self.backend.draw_path(points, &style)?;
                }
                // One element that says the colour; [`finish_svg`] puts the cells into it.
                Shape::Cells { ink, .. } => {
                    let style = self.style(*ink, 1.0);
                    self.backend.draw_rect((0, 0), (0, 0), &style, true)?;
                }
                other => self.filled(other)?,
            }
        }
        scene.texts.iter().try_for_each(|text| self.written(text))
    }

    /// For pixels: a line is a row of quadrilaterals with discs at its corners, since plotters' own outline of a
    /// thick line breaks where data turn sharply.
    fn bitmap(&mut self, scene: &Scene) -> Drawn<B> {
        self.paper(scene)?;
        for shape in &scene.shapes {
            match shape {
                Shape::Path { points, width, ink, dash: [] } => self.stroke(points, *width, *ink)?,
                Shape::Path { points, width, ink, dash } => {
                    for piece in dashed(points, dash) {
                        self.stroke(&piece, *width, *ink)?;
                    }
                }
                other => self.filled(other)?,
            }
        }
        scene.texts.iter().try_for_each(|text| self.set(text))
    }

    fn paper(&mut self, scene: &Scene) -> Drawn<B> {
        let style = self.style(Ink::Paper, 1.0);
        let corner = self.at(scene.size);
        self.backend.draw_rect((0, 0), corner, &style, true)
    }

    fn filled(&mut self, shape: &Shape) -> Drawn<B> {
        match shape {
            Shape::Polygon { points, ink, alpha } => {
                let style = self.style(*ink, *alpha);
                let points: Vec<_> = points.iter().map(|point| self.at(*point)).collect();
                self.backend.fill_polygon(points, &style)
            }
            Shape::Rect { from, to, ink, alpha } => {
                let style = self.style(*ink, *alpha);
                let (from, to) = (self.at(*from), self.at(*to));
                self.backend.draw_rect(from, to, &style, true)
            }
            Shape::Disc { at, radius, ink } => {
                let style = self.style(*ink, 1.0);
                let (at, radius) = (self.at(*at), self.length(*radius));
                self.backend.draw_circle(at, radius, &style, true)
            }
            Shape::Cells { cells, ink } => {
                let style = self.style(*ink, 1.0);
                cells.iter().try_for_each(|(from, to)| {
                    let (from, to) = (self.at(*from), self.at(*to));
                    self.backend.draw_rect(from, to, &style, true)
                })
            }
            Shape::Path { .. } => Ok(()),
        }
    }

    fn stroke(&mut self, points: &[Point], width: f64, ink: Ink) -> Drawn<B> {
        let style = self.style(ink, 1.0);
        let half = width / 2.0;
        for pair in points.windows(2) {
            let ((x0, y0), (x1, y1)) = (pair[0], pair[1]);
            if x0 == x1 || y0 == y1 {
                let from =
                    (x0.min(x1) - if x0 == x1 { half } else { 0.0 }, y0.min(y1) - if x0 == x1 { 0.0 } else { half });
                let to =
                    (x0.max(x1) + if x0 == x1 { half } else { 0.0 }, y0.max(y1) + if x0 == x1 { 0.0 } else { half });
                let (from, to) = (self.at(from), self.at(to));
                self.backend.draw_rect(from, to, &style, true)?;
                continue;
            }
            let length = (x1 - x0).hypot(y1 - y0);
            let (dx, dy) = (-(y1 - y0) / length * half, (x1 - x0) / length * half);
            let corners = [(x0 + dx, y0 + dy), (x1 + dx, y1 + dy), (x1 - dx, y1 - dy), (x0 - dx, y0 - dy)];
            let corners: Vec<_> = corners.into_iter().map(|corner| self.at(corner)).collect();
            self.backend.fill_polygon(corners, &style)?;
        }
        if width >= 2.0 && points.len() > 2 {
            for corner in &points[1..points.len() - 1] {
                let (at, radius) = (self.at(*corner), self.length(half));
                self.backend.draw_circle(at, radius, &style, true)?;
            }
        }
        Ok(())
    }

    /// A text as a text.
    fn written(&mut self, text: &TextBox) -> Drawn<B> {
        // plotters puts the top of a text 0.76 em above its baseline, and calls 1.24 em its size.
        const TOP: f64 = 0.76;
        const SIZE: f64 = 1.24;
        let h_pos = match text.anchor {
            Anchor::Start => HPos::Left,
            Anchor::Middle => HPos::Center,
            Anchor::End => HPos::Right,
        };
        let color = self.colour(text.ink, 1.0).to_backend_color();
        let font = FontDesc::new(FontFamily::Name(font::FAMILY), text.size * self.scale * SIZE, FontStyle::Normal);
        let style = TextStyle { font, color, pos: Pos::new(h_pos, VPos::Top) };
        let at = self.at((text.at.0, text.at.1 - TOP * text.size));
        self.backend.draw_text(&text.text, &style, at)
    }

    /// A text as pixels of the embedded font.
    fn set(&mut self, text: &TextBox) -> Drawn<B> {
        let colour = self.colour(text.ink, 1.0);
        let at = (text.area().left * self.scale, text.at.1 * self.scale);
        let mut drawn = Ok(());
        font::pixels(&text.text, text.size * self.scale, at, |x, y, cover| {
            if drawn.is_ok() {
                drawn =
                    self.backend.draw_pixel((x, y), RGBAColor(colour.0, colour.1, colour.2, cover).to_backend_color());
            }
        });
        drawn
    }

    fn at(&self, point: Point) -> (i32, i32) {
        ((point.0 * self.scale).round() as i32, (point.1 * self.scale).round() as i32)
    }

    fn length(&self, length: f64) -> u32 {
        (length * self.scale).round().max(1.0) as u32
    }

    fn colour(&self, ink: Ink, alpha: f64) -> RGBAColor {
        let rgb = self.theme.colour(ink);
        RGBAColor(rgb.0, rgb.1, rgb.2, alpha)
    }

    fn style(&self, ink: Ink, alpha: f64) -> ShapeStyle {
        ShapeStyle { color: self.colour(ink, alpha), filled: true, stroke_width: 1 }
    }
}

/// A line cut into its dashes.
fn dashed(points: &[Point], dash: &[f64]) -> Vec<Vec<Point>> {
    let mut pieces = Vec::new();
    let Some(first) = points.first() else { return pieces };
    let (mut index, mut left) = (0, dash[0]);
    let mut current = vec![*first];
    for pair in points.windows(2) {
        let ((mut x, mut y), (x1, y1)) = (pair[0], pair[1]);
        let mut rest = (x1 - x).hypot(y1 - y);
        while rest > left {
            (x, y) = (x + (x1 - x) * left / rest, y + (y1 - y) * left / rest);
            rest -= left;
            current.push((x, y));
            if index % 2 == 0 {
                pieces.push(std::mem::take(&mut current));
            }
            index += 1;
            left = dash[index % dash.len()];
            current = vec![(x, y)];
        }
        left -= rest;
        current.push((x1, y1));
    }
    if index % 2 == 0 && current.len() > 1 {
        pieces.push(current);
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dashes_cover_their_share_of_a_line() {
        let line: Vec<Point> = (0..=100).map(|i| (f64::from(i), f64::from(i % 7))).collect();
        let length = |points: &[Point]| -> f64 {
            points.windows(2).map(|pair| (pair[1].0 - pair[0].0).hypot(pair[1].1 - pair[0].1)).sum()
        };
        let covered: f64 = dashed(&line, &[6.0, 4.0]).iter().map(|piece| length(piece)).sum();
        assert!((covered / length(&line) - 0.6).abs() < 0.02);
    }

    #[test]
    fn shrinking_averages() {
        let mut large = vec![0u8; 4 * 4 * 3];
        large[..3].copy_from_slice(&[200, 100, 40]);
        let small = shrink(&large, 4);
        assert_eq!(small.len(), 2 * 2 * 3);
        assert_eq!(small[..3], [50, 25, 10]);
    }
}
