#include "textflag.h"

// nopl 0xNN555243(AX)(AX*1): the displacement is "CRU" and the mark's number.
#define MARK(n) \
	LONG $0x00841f0f \
	BYTE $0x43; BYTE $0x52; BYTE $0x55; BYTE $n

TEXT ·markEnd(SB), NOSPLIT, $0-0
	MARK(0)
	RET

TEXT ·markCheckpoint(SB), NOSPLIT, $0-0
	MARK(1)
	RET

TEXT ·markRestore(SB), NOSPLIT, $0-0
	MARK(2)
	RET
