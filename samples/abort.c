// Dies by SIGABRT.
//#Layouts: static
//#Exit: SIGABRT
#include <stdlib.h>

int main(void) { abort(); }
