//! The functions of CPython's C interface that the preloaded libraries call, found by name in the running process.
//!
//! Invariant: nothing of CPython's layout is assumed; only exported functions, and objects as opaque pointers.

use crate::sys;
use core::ffi::{CStr, c_char, c_int, c_void};
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

/// `PyMethodDef`.
#[repr(C)]
pub struct Method {
    pub name: *const c_char,
    pub function: unsafe extern "C" fn(Object, Object) -> Object,
    pub flags: c_int,
    pub doc: *const c_char,
}
// SAFETY: never written; the pointers are to static text.
unsafe impl Sync for Method {}

pub const METH_VARARGS: c_int = 1;

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
        increment = c"Py_IncRef": fn(Object);
        decrement = c"Py_DecRef": fn(Object);
        clear_error = c"PyErr_Clear": fn();
        import = c"PyImport_ImportModule": fn(*const c_char) -> Object;
        modules = c"PyImport_GetModuleDict": fn() -> Object;
        module_dictionary = c"PyModule_GetDict": fn(Object) -> Object;
        function = c"PyCFunction_NewEx": fn(*const Method, Object, Object) -> Object;
        attribute = c"PyObject_GetAttr": fn(Object, Object) -> Object;
        attribute_named = c"PyObject_GetAttrString": fn(Object, *const c_char) -> Object;
        tuple = c"PyTuple_New": fn(isize) -> Object;
        set_tuple_item = c"PyTuple_SetItem": fn(Object, isize, Object) -> c_int;
        call = c"PyObject_CallObject": fn(Object, Object) -> Object;
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

impl Api {
    /// Whether an import may be nested here; `none` is Python's own object of that name. Up to Python 3.11 the import
    /// system notes which lock a thread is waiting for in a dictionary by thread, and an import within that moment
    /// would delete the note of the outer one. Called from a pending call.
    pub fn may_import(&self, none: Object) -> bool {
        // SAFETY: the interpreter is initialised and this thread runs in it; borrowed but for `key`, which is given
        // back.
        unsafe {
            let borrowed = |dictionary: Object, name: &CStr| {
                let key = (self.interned)(name.as_ptr());
                let value = if dictionary.is_null() { dictionary } else { (self.item)(dictionary, key) };
                (self.decrement)(key);
                value
            };
            let importlib = borrowed((self.modules)(), c"_frozen_importlib");
            let contents = if importlib.is_null() { importlib } else { (self.module_dictionary)(importlib) };
            let waiting = borrowed(contents, c"_blocking_on");
            if waiting.is_null() || waiting == none {
                return true;
            }
            let waiters = (self.count)(waiting);
            if waiters < 0 {
                (self.clear_error)(); // Not a dictionary: a later Python, where imports may be nested.
            }
            waiters <= 0
        }
    }

    /// Calls a module's function with a function of ours.
    ///
    /// # Safety
    /// The interpreter is initialised and the calling thread runs in it.
    pub unsafe fn call_with(&self, module: &CStr, attribute: &CStr, method: &'static Method) {
        // SAFETY: the caller's word; references are given back where owned.
        unsafe {
            let module = (self.import)(module.as_ptr());
            let target = if module.is_null() { module } else { (self.attribute_named)(module, attribute.as_ptr()) };
            let function = (self.function)(method, core::ptr::null_mut(), core::ptr::null_mut());
            if !target.is_null() && !function.is_null() {
                let arguments = (self.tuple)(1);
                (self.increment)(function); // The tuple takes a reference over.
                (self.set_tuple_item)(arguments, 0, function);
                (self.decrement)((self.call)(target, arguments));
                (self.decrement)(arguments);
            }
            for object in [function, target, module] {
                (self.decrement)(object);
            }
        }
    }
}
