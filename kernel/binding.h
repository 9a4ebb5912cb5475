/* The binding: two Python types around the core, within the limited API of Python 3.11. */
#ifndef CHRONOBOOK_BINDING_H
#define CHRONOBOOK_BINDING_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "kernel.h"

extern PyType_Spec book_spec, levels_spec, column_spec;

/* Rows of i64 in an argument; `rows` is NULL after an exception. */
struct rows {
  Py_buffer buffer;
  const int64_t *rows;
  size_t count;
};

/* Get the rows of an object with a buffer, whose size must be a multiple of eight. Returns 0 after an exception. */
int rows_of(PyObject *object, struct rows *rows);
void rows_release(struct rows *rows);

/* Check the number of arguments. Returns 0 after an exception. */
int has_arguments(const char *name, Py_ssize_t count, Py_ssize_t wanted);

/* State of the module. */
struct state {
  PyObject *column_type;
};

#endif
