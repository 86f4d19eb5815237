// What every test program starts with.
#include <core.p4>
#include <v1model.p4>
