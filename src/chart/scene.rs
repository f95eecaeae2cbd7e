//! A chart with sizes: shapes and texts at CSS pixel coordinates of a picture.
//!
//! Invariant: a scene holds everything that is drawn, every text with its measured box; colours are still meanings.

use super::font;
use super::theme::{Ink, Marker};

/// A point, pixels from the left and from the top.
pub type Point = (f64, f64);

/// Everything drawn, in order; texts lie above shapes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scene {
    /// Width and height.
    pub size: Point,
    /// In the order of drawing.
    pub shapes: Vec<Shape>,
    /// In the order of drawing.
    pub texts: Vec<TextBox>,
    /// The plotting area of each panel.
    pub plots: Vec<Area>,
    /// Areas that are about one allocator, with its slot.
    pub owned: Vec<(Area, usize)>,
}

/// One shape.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// A line.
    Path {
        /// Corners.
        points: Vec<Point>,
        /// Thickness.
        width: f64,
        /// Colour.
        ink: Ink,
        /// Lengths of dash and gap in turn; empty is solid.
        dash: &'static [f64],
    },
    /// A filled area.
    Polygon {
        /// Corners.
        points: Vec<Point>,
        /// Colour.
        ink: Ink,
        /// 0 to 1.
        alpha: f64,
    },
    /// A filled rectangle.
    Rect {
        /// Upper left corner.
        from: Point,
        /// Lower right corner.
        to: Point,
        /// Colour.
        ink: Ink,
        /// 0 to 1.
        alpha: f64,
    },
    /// Filled rectangles of one colour.
    Cells {
        /// Upper left and lower right corners.
        cells: Vec<(Point, Point)>,
        /// Colour.
        ink: Ink,
    },
    /// A filled disc.
    Disc {
        /// Centre.
        at: Point,
        /// Radius.
        radius: f64,
        /// Colour.
        ink: Ink,
    },
}

/// Which end of a text its coordinate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// The left end.
    Start,
    /// The middle.
    Middle,
    /// The right end.
    End,
}

/// A line of text.
#[derive(Clone, Debug, PartialEq)]
pub struct TextBox {
    /// What it says.
    pub text: String,
    /// The anchor's x, and the baseline's y.
    pub at: Point,
    /// Which end `at` is.
    pub anchor: Anchor,
    /// Em.
    pub size: f64,
    /// Colour.
    pub ink: Ink,
}

/// A rectangle: left, top, right, bottom.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Area {
    /// Left edge.
    pub left: f64,
    /// Upper edge.
    pub top: f64,
    /// Right edge.
    pub right: f64,
    /// Lower edge.
    pub bottom: f64,
}

impl Area {
    /// Whether two rectangles share more than an edge.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.left < other.right && other.left < self.right && self.top < other.bottom && other.top < self.bottom
    }

    /// Whether another rectangle lies within this one.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        self.left <= other.left && self.top <= other.top && self.right >= other.right && self.bottom >= other.bottom
    }
}

impl TextBox {
    /// A text.
    #[must_use]
    pub fn new(text: impl Into<String>, at: Point, anchor: Anchor, size: f64, ink: Ink) -> Self {
        Self { text: text.into(), at, anchor, size, ink }
    }

    /// The box it fills.
    #[must_use]
    pub fn area(&self) -> Area {
        let width = font::width(&self.text, self.size);
        let left = match self.anchor {
            Anchor::Start => self.at.0,
            Anchor::Middle => self.at.0 - width / 2.0,
            Anchor::End => self.at.0 - width,
        };
        let (top, bottom) = (self.at.1 - font::ASCENT * self.size, self.at.1 + font::DESCENT * self.size);
        Area { left, top, right: left + width, bottom }
    }
}

impl Scene {
    /// A straight solid line.
    pub fn line(&mut self, from: Point, to: Point, width: f64, ink: Ink) {
        self.shapes.push(Shape::Path { points: vec![from, to], width, ink, dash: &[] });
    }

    /// A filled marker of about the same area whatever its shape.
    pub fn marker(&mut self, marker: Marker, at: Point, radius: f64, ink: Ink) {
        let r = radius;
        let corners: &[Point] = match marker {
            Marker::Disc => {
                self.shapes.push(Shape::Disc { at, radius, ink });
                return;
            }
            Marker::Square => &[(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)],
            Marker::Diamond => &[(0.0, -1.25), (1.25, 0.0), (0.0, 1.25), (-1.25, 0.0)],
            Marker::Triangle => &[(0.0, -1.2), (1.2, 0.85), (-1.2, 0.85)],
        };
        let points = corners.iter().map(|(x, y)| (at.0 + x * r, at.1 + y * r)).collect();
        self.shapes.push(Shape::Polygon { points, ink, alpha: 1.0 });
    }

    /// An open marker: the same, hollowed out with the colour of paper.
    pub fn ring(&mut self, marker: Marker, at: Point, radius: f64, ink: Ink) {
        self.marker(marker, at, radius, ink);
        self.marker(marker, at, radius * 0.52, Ink::Paper);
    }
}
