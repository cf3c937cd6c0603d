//! Tar streams to trees and back, codecs, the per-entry index, exact tar rebuild.
