//! The four functions that rustc expects of every environment. `no_builtins` keeps them from calling themselves.
//!
//! What rustc calls them by on x86_64 is a table of addresses, which are right only where the stub is linked to. So the stub
//! itself calls them by their names, and what would be a call of rustc's, such as `slice::fill`, is done by those; build.rs
//! finds out if one is left.

/// # Safety
/// As memcpy(3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    // SAFETY: not overlapping (the caller's promise), so either direction is right.
    unsafe { memmove(to, from, len) }
}

/// # Safety
/// As memmove(3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    let backwards = (to as usize) > (from as usize);
    for step in 0..len {
        let i = if backwards { len - 1 - step } else { step };
        // SAFETY: `i` is below `len`, for which the caller vouches; the direction never overtakes an overlap.
        unsafe { *to.add(i) = *from.add(i) };
    }
    to
}

/// # Safety
/// As memset(3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memset(to: *mut u8, byte: i32, len: usize) -> *mut u8 {
    const WORD: usize = size_of::<usize>();
    let word = usize::from_ne_bytes([byte as u8; WORD]);
    let mut i = 0;
    while i < len {
        let at = to.wrapping_add(i);
        let is_word = (at as usize).is_multiple_of(WORD) && len - i >= WORD;
        // SAFETY: from `i` on there are as many bytes before `len`, for which the caller vouches.
        unsafe {
            match is_word {
                true => at.cast::<usize>().write(word),
                false => at.write(byte as u8),
            }
        }
        i += if is_word { WORD } else { 1 };
    }
    to
}

/// # Safety
/// As memcmp(3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
    for i in 0..len {
        // SAFETY: `i` is below `len`, for which the caller vouches.
        let (x, y) = unsafe { (*a.add(i), *b.add(i)) };
        if x != y {
            return i32::from(x) - i32::from(y);
        }
    }
    0
}
