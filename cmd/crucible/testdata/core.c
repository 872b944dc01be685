// A program for a debugger: two threads, each some calls deep, and a value in the heap.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct record { int number; double ratio; char name[16]; } *record;
static pthread_barrier_t both;

static __attribute__((noinline)) void waits(int depth, const char *who)
{
	volatile char local[64];
	strcpy((char *)local, who);
	if (depth > 0)
		waits(depth - 1, who);
	pthread_barrier_wait(&both);
	if (!strcmp(who, "main"))
		puts("ready"), fflush(stdout);
	for (;;)
		pause();
}

static void *second(void *who)
{
	waits(3, who);
	return 0;
}

int main(void)
{
	pthread_t thread;
	record = malloc(sizeof *record);
	record->number = 4711;
	record->ratio = 0.25;
	strcpy(record->name, "in the heap");
	pthread_barrier_init(&both, 0, 2);
	pthread_create(&thread, 0, second, "second");
	waits(2, "main");
}
