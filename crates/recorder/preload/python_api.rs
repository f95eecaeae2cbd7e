//! The functions of CPython's C interface that the preloaded libraries call, found by name in the running process.
//!
//! Invariant: nothing of CPython's layout is assumed; only exported functions, and objects as opaque pointers.

use crate::sys;
use core::ffi::{CStr, c_char, c_int, c_long, c_void};
use core::mem::transmute;

/// Any Python object.
pub type Object = *mut c_void;

/// `PyMemAllocatorEx`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Allocator {
    pub context: *mut c_void,
    pub malloc: unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void,
    pub calloc: unsafe extern "C" fn(*mut c_void, usize, usize) -> *mut c_void,
    pub realloc: unsafe extern "C" fn(*mut c_void, *mut c_void, usize) -> *mut c_void,
    pub free: unsafe extern "C" fn(*mut c_void, *mut c_void),
}

/// The symbol's address, if the process has it.
pub fn find(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: a NUL-terminated name.
    let found = unsafe { sys::dlsym(sys::RTLD_DEFAULT, name.as_ptr()) };
    (!found.is_null()).then_some(found)
}

macro_rules! interface {
    ($($(#[$note:meta])* $kind:ident {
        $($field:ident = $symbol:literal : fn($($argument:ty),*) $(-> $result:ty)?;)*
    })*) => {$(
        $(#[$note])*
        #[derive(Clone, Copy)]
        pub struct $kind {
            $(pub $field: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl $kind {
            /// Finds every function; `None` when one is missing.
            pub fn load() -> Option<Self> {
                Some(Self {
                    // SAFETY: the function of this name has this type since Python 3.9.
                    $($field: unsafe {
                        transmute::<*mut c_void, unsafe extern "C" fn($($argument),*) $(-> $result)?>(find($symbol)?)
                    },)*
                })
            }
        }
    )*};
}

interface! {
    /// What wraps the allocators: there in every CPython 3.
    Memory {
        get_allocator = c"PyMem_GetAllocator": fn(c_int, *mut Allocator);
        set_allocator = c"PyMem_SetAllocator": fn(c_int, *mut Allocator);
    }
    /// What takes the interpreter's lock.
    Lock {
        own_thread_state = c"PyGILState_GetThisThreadState": fn() -> *mut c_void;
        take = c"PyGILState_Ensure": fn() -> c_int;
        give_back = c"PyGILState_Release": fn(c_int);
    }
    /// What calls a function of Python's without a tuple of arguments.
    Call {
        function = c"PyObject_Vectorcall": fn(Object, *const Object, usize, Object) -> Object;
        number = c"PyLong_FromLong": fn(c_long) -> Object;
    }
    /// What lists the threads that an interpreter knows.
    States {
        first_interpreter = c"PyInterpreterState_Head": fn() -> *mut c_void;
        next_interpreter = c"PyInterpreterState_Next": fn(*mut c_void) -> *mut c_void;
        first_state = c"PyInterpreterState_ThreadHead": fn(*mut c_void) -> *mut c_void;
        next_state = c"PyThreadState_Next": fn(*mut c_void) -> *mut c_void;
    }
    /// What sees the interpreter's life.
    Api {
        is_initialized = c"Py_IsInitialized": fn() -> c_int;
        holds_gil = c"PyGILState_Check": fn() -> c_int;
        add_pending_call = c"Py_AddPendingCall": fn(unsafe extern "C" fn(*mut c_void) -> c_int, *mut c_void) -> c_int;
        version = c"Py_GetVersion": fn() -> *const c_char;
        decrement = c"Py_DecRef": fn(Object);
        take_error = c"PyErr_Fetch": fn(*mut Object, *mut Object, *mut Object);
        put_error_back = c"PyErr_Restore": fn(Object, Object, Object);
        modules = c"PyImport_GetModuleDict": fn() -> Object;
        module_dictionary = c"PyModule_GetDict": fn(Object) -> Object;
        attribute = c"PyObject_GetAttr": fn(Object, Object) -> Object;
        is_true = c"PyObject_IsTrue": fn(Object) -> c_int;
        type_of = c"PyObject_Type": fn(Object) -> Object;
        is_subtype = c"PyType_IsSubtype": fn(Object, Object) -> c_int;
        item = c"PyDict_GetItem": fn(Object, Object) -> Object;
        next = c"PyDict_Next": fn(Object, *mut isize, *mut Object, *mut Object) -> c_int;
        count = c"PyDict_Size": fn(Object) -> isize;
        interned = c"PyUnicode_InternFromString": fn(*const c_char) -> Object;
        text = c"PyUnicode_AsUTF8": fn(Object) -> *const c_char;
    }
}
