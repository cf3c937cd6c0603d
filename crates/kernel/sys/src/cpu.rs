//! Code that is compiled twice: for what every processor of an architecture has, and for what nearly all have.

/// Work that is done by [`with_bit_instructions`]. Mark [`work`](Work::work) `#[inline(always)]`: only what is inlined is
/// compiled anew.
pub trait Work {
    /// What comes of it.
    type Done;

    /// Does it.
    fn work(self) -> Self::Done;
}

/// Does `work` with instructions that shift and mask by counts which vary (BMI1, BMI2) where the processor has them. The outcome
/// is the same.
pub fn with_bit_instructions<W: Work>(work: W) -> W::Done {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("bmi1") && std::arch::is_x86_feature_detected!("bmi2") {
        // SAFETY: the processor has both.
        return unsafe { bit_instructions(work) };
    }
    work.work()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "bmi1,bmi2")]
fn bit_instructions<W: Work>(work: W) -> W::Done {
    work.work()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outcome_is_that_of_the_work() {
        struct Shift(u64, u32);
        impl Work for Shift {
            type Done = u64;

            #[inline(always)]
            fn work(self) -> u64 {
                self.0 >> (self.1 & 63)
            }
        }
        for count in 0..64 {
            assert_eq!(with_bit_instructions(Shift(u64::MAX, count)), u64::MAX >> count);
        }
    }
}
