/* The module `chronobook_server.kernel._compiled`. */
#include "binding.h"

int rows_of(PyObject *object, struct rows *rows) {
  rows->rows = NULL;
  if (PyObject_GetBuffer(object, &rows->buffer, PyBUF_SIMPLE) != 0) return 0;
  if (rows->buffer.len % 8 != 0 || (rows->buffer.len && (uintptr_t)rows->buffer.buf % 8 != 0)) {
    PyBuffer_Release(&rows->buffer);
    PyErr_SetString(PyExc_ValueError, "a column has eight bytes a row");
    return 0;
  }
  static const int64_t none[1];
  rows->rows = rows->buffer.len ? rows->buffer.buf : none;
  rows->count = (size_t)rows->buffer.len / 8;
  return 1;
}

void rows_release(struct rows *rows) {
  if (rows->rows) PyBuffer_Release(&rows->buffer);
}

int has_arguments(const char *name, Py_ssize_t count, Py_ssize_t wanted) {
  if (count == wanted) return 1;
  PyErr_Format(PyExc_TypeError, "%s takes %zd arguments, not %zd", name, wanted, count);
  return 0;
}

static int add_type(PyObject *module, PyType_Spec *spec) {
  PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);
  int failed = !type || PyModule_AddType(module, (PyTypeObject *)type) != 0;
  Py_XDECREF(type);
  return failed ? -1 : 0;
}

static int add_types(PyObject *module) {
  struct state *state = PyModule_GetState(module);
  state->column_type = PyType_FromModuleAndSpec(module, &column_spec, NULL);
  if (!state->column_type || add_type(module, &book_spec) != 0) return -1;
  return add_type(module, &levels_spec);
}

static int clear(PyObject *module) {
  struct state *state = PyModule_GetState(module);
  Py_CLEAR(state->column_type);
  return 0;
}

static int traverse(PyObject *module, visitproc visit, void *arg) {
  Py_VISIT(((struct state *)PyModule_GetState(module))->column_type);
  return 0;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, add_types}, {0, NULL}};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "_compiled",
    .m_doc = "The kernel: book and levels of a segment in C.",
    .m_size = sizeof(struct state),
    .m_slots = slots,
    .m_traverse = traverse,
    .m_clear = clear,
};

PyMODINIT_FUNC PyInit__compiled(void) { return PyModuleDef_Init(&definition); }
