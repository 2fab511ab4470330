//! The four functions that rustc expects of every environment. `no_builtins` keeps them from calling themselves.

/// # Safety
/// As memcpy(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    // SAFETY: not overlapping (the caller's promise), so either direction is right.
    unsafe { memmove(to, from, len) }
}

/// # Safety
/// As memmove(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
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
unsafe extern "C" fn memset(to: *mut u8, byte: i32, len: usize) -> *mut u8 {
    for i in 0..len {
        // SAFETY: `i` is below `len`, for which the caller vouches.
        unsafe { *to.add(i) = byte as u8 };
    }
    to
}

/// # Safety
/// As memcmp(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
    for i in 0..len {
        // SAFETY: `i` is below `len`, for which the caller vouches.
        let (x, y) = unsafe { (*a.add(i), *b.add(i)) };
        if x != y {
            return i32::from(x) - i32::from(y);
        }
    }
    0
}
