//! Memory runs out at each single step at which it can, and nothing is half done afterwards.
