// A plug-in for QEMU's emulator (TCG) that counts the instructions of a guest
// between marks, those of its kernel block by block. A mark is a no-op that
// nobody else uses: see mark_amd64.s.
//
//	-plugin FILE,out=PATH
//
// For each pair of marks it appends to PATH
//
//	section MARK kernel INSTRUCTIONS user INSTRUCTIONS
//	ADDRESS INSTRUCTIONS TIMES      a block of the kernel's code, many of these
//	end
//
// Blocks are what QEMU translates at a time. One that is left in the middle, by
// a page fault, is counted as a whole, and what is executed of it afterwards
// once more: that happens in the same places each time.
//
// API is the version of QEMU's interface; what is needed of it is declared here,
// so that neither its header nor glib's are.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef void block_cb(unsigned cpu, void *data);

extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *);
extern void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, block_cb *, int regs, void *);
extern void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, block_cb *, int regs, void *);

#if API >= 7
#define TRANSLATED(tb) struct qemu_plugin_tb *tb, void *data
extern void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, void (*)(TRANSLATED(tb)), void *);
#define on_translation(id, f) qemu_plugin_register_vcpu_tb_trans_cb(id, f, NULL)
#else
#define TRANSLATED(tb) uint64_t id, struct qemu_plugin_tb *tb
extern void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, void (*)(TRANSLATED(tb)));
#define on_translation(id, f) qemu_plugin_register_vcpu_tb_trans_cb(id, f)
#endif

#if API >= 3
extern size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *, void *, size_t);
#else
extern const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
#endif

__attribute__((visibility("default"))) int qemu_plugin_version = API;

// A block of the kernel's. What is translated again, for instance because QEMU
// threw all translations away, is the same block again.
struct block {
	uint64_t address, instructions, times;
	struct block *next;
};

static struct block *blocks[1 << 16];
static uint64_t user; // instructions
static int section;   // the mark that it began with; 0 outside of one
static FILE *out;

static void in_kernel(unsigned cpu, void *block) { ((struct block *)block)->times++; }

static void in_user(unsigned cpu, void *instructions) { user += (uintptr_t)instructions; }

static struct block *find_block(uint64_t address, uint64_t instructions)
{
	struct block **head = &blocks[(address ^ address >> 16) & 0xffff];
	for (struct block *b = *head; b; b = b->next)
		if (b->address == address && b->instructions == instructions)
			return b;
	struct block *b = calloc(1, sizeof *b);
	if (!b)
		abort();
	*b = (struct block){address, instructions, 0, *head};
	return *head = b;
}

static void begin(int mark)
{
	section = mark;
	user = 0;
	for (size_t i = 0; i < 1 << 16; i++)
		for (struct block *b = blocks[i]; b; b = b->next)
			b->times = 0;
}

static void end(void)
{
	uint64_t kernel = 0;
	for (size_t i = 0; i < 1 << 16; i++)
		for (struct block *b = blocks[i]; b; b = b->next)
			kernel += b->instructions * b->times;
	fprintf(out, "section %d kernel %" PRIu64 " user %" PRIu64 "\n", section, kernel, user);
	for (size_t i = 0; i < 1 << 16; i++)
		for (struct block *b = blocks[i]; b; b = b->next)
			if (b->times)
				fprintf(out, "%" PRIx64 " %" PRIu64 " %" PRIu64 "\n", b->address, b->instructions, b->times);
	fprintf(out, "end\n");
	fflush(out); // the host reads it while the guest goes on
	section = 0;
}

static void at_mark(unsigned cpu, void *mark)
{
	if (mark)
		begin((uintptr_t)mark);
	else if (section)
		end();
}

// mark_of is the number of a mark, or -1 for every other instruction.
static int mark_of(const struct qemu_plugin_insn *insn)
{
	static const unsigned char head[] = {0x0f, 0x1f, 0x84, 0x00, 'C', 'R', 'U'};
	unsigned char bytes[8];
	if (qemu_plugin_insn_size(insn) != sizeof bytes)
		return -1;
#if API >= 3
	if (qemu_plugin_insn_data(insn, bytes, sizeof bytes) != sizeof bytes)
		return -1;
#else
	memcpy(bytes, qemu_plugin_insn_data(insn), sizeof bytes);
#endif
	return memcmp(bytes, head, sizeof head) ? -1 : bytes[7];
}

static void translated(TRANSLATED(tb))
{
	size_t n = qemu_plugin_tb_n_insns(tb);
	uint64_t address = qemu_plugin_tb_vaddr(tb);
	if (address >> 63) {
		qemu_plugin_register_vcpu_tb_exec_cb(tb, in_kernel, 0, find_block(address, n));
		return;
	}
	qemu_plugin_register_vcpu_tb_exec_cb(tb, in_user, 0, (void *)n);
	for (size_t i = 0; i < n; i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		int mark = mark_of(insn);
		if (mark >= 0)
			qemu_plugin_register_vcpu_insn_exec_cb(insn, at_mark, 0, (void *)(uintptr_t)mark);
	}
}

__attribute__((visibility("default"))) int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv)
{
	for (int i = 0; i < argc; i++)
		if (!strncmp(argv[i], "out=", 4))
			out = fopen(argv[i] + 4, "w");
	if (!out)
		return -1;
	on_translation(id, translated);
	return 0;
}
