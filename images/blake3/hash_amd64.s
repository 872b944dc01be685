// BLAKE3's compression of many inputs at once: a lane of each vector register
// is one input, so every instruction of the function is one vector instruction
// and nothing is moved between the lanes, save for turning rows of input into
// columns. The order of the message words in each round is that of the BLAKE3
// specification, table 2 applied once more per round.

#include "textflag.h"

DATA iv<>+0(SB)/4, $0x6a09e667
DATA iv<>+4(SB)/4, $0xbb67ae85
DATA iv<>+8(SB)/4, $0x3c6ef372
DATA iv<>+12(SB)/4, $0xa54ff53a
DATA iv<>+16(SB)/4, $0x510e527f
DATA iv<>+20(SB)/4, $0x9b05688c
DATA iv<>+24(SB)/4, $0x1f83d9ab
DATA iv<>+28(SB)/4, $0x5be0cd19
GLOBL iv<>(SB), RODATA|NOPTR, $32

// The numbers of the lanes; before them, for parents (which all have counter
// 0), zeros.
DATA lane<>+0(SB)/8, $0
DATA lane<>+64(SB)/4, $0
DATA lane<>+68(SB)/4, $1
DATA lane<>+72(SB)/4, $2
DATA lane<>+76(SB)/4, $3
DATA lane<>+80(SB)/4, $4
DATA lane<>+84(SB)/4, $5
DATA lane<>+88(SB)/4, $6
DATA lane<>+92(SB)/4, $7
DATA lane<>+96(SB)/4, $8
DATA lane<>+100(SB)/4, $9
DATA lane<>+104(SB)/4, $10
DATA lane<>+108(SB)/4, $11
DATA lane<>+112(SB)/4, $12
DATA lane<>+116(SB)/4, $13
DATA lane<>+120(SB)/4, $14
DATA lane<>+124(SB)/4, $15
GLOBL lane<>(SB), RODATA|NOPTR, $128

// VPSHUFB's orders for rotating each 32-bit word to the right by 16 and by 8.
DATA rot16<>+0(SB)/8, $0x0504070601000302
DATA rot16<>+8(SB)/8, $0x0d0c0f0e09080b0a
DATA rot16<>+16(SB)/8, $0x0504070601000302
DATA rot16<>+24(SB)/8, $0x0d0c0f0e09080b0a
GLOBL rot16<>(SB), RODATA|NOPTR, $32
DATA rot8<>+0(SB)/8, $0x0407060500030201
DATA rot8<>+8(SB)/8, $0x0c0f0e0d080b0a09
DATA rot8<>+16(SB)/8, $0x0407060500030201
DATA rot8<>+24(SB)/8, $0x0c0f0e0d080b0a09
GLOBL rot8<>(SB), RODATA|NOPTR, $32

// TURN(a, b, c, d, t, u, p, q, r, s) turns, in each 128-bit part, the four
// rows a-d of four words into the columns p-s. It overwrites a, b, t, u.
#define TURN(a, b, c, d, t, u, p, q, r, s) \
	VPUNPCKLDQ b, a, t; VPUNPCKHDQ b, a, u; \
	VPUNPCKLDQ d, c, a; VPUNPCKHDQ d, c, b; \
	VPUNPCKLQDQ a, t, p; VPUNPCKHQDQ a, t, q; \
	VPUNPCKLQDQ b, u, r; VPUNPCKHQDQ b, u, s

// HALF16 is G, four times side by side: half a round.
#define HALF16(a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3, x0, x1, x2, x3, y0, y1, y2, y3) \
	VPADDD b0, a0, a0; VPADDD b1, a1, a1; VPADDD b2, a2, a2; VPADDD b3, a3, a3; \
	VPADDD x0, a0, a0; VPADDD x1, a1, a1; VPADDD x2, a2, a2; VPADDD x3, a3, a3; \
	VPXORD a0, d0, d0; VPXORD a1, d1, d1; VPXORD a2, d2, d2; VPXORD a3, d3, d3; \
	VPRORD $16, d0, d0; VPRORD $16, d1, d1; VPRORD $16, d2, d2; VPRORD $16, d3, d3; \
	VPADDD d0, c0, c0; VPADDD d1, c1, c1; VPADDD d2, c2, c2; VPADDD d3, c3, c3; \
	VPXORD c0, b0, b0; VPXORD c1, b1, b1; VPXORD c2, b2, b2; VPXORD c3, b3, b3; \
	VPRORD $12, b0, b0; VPRORD $12, b1, b1; VPRORD $12, b2, b2; VPRORD $12, b3, b3; \
	VPADDD b0, a0, a0; VPADDD b1, a1, a1; VPADDD b2, a2, a2; VPADDD b3, a3, a3; \
	VPADDD y0, a0, a0; VPADDD y1, a1, a1; VPADDD y2, a2, a2; VPADDD y3, a3, a3; \
	VPXORD a0, d0, d0; VPXORD a1, d1, d1; VPXORD a2, d2, d2; VPXORD a3, d3, d3; \
	VPRORD $8, d0, d0; VPRORD $8, d1, d1; VPRORD $8, d2, d2; VPRORD $8, d3, d3; \
	VPADDD d0, c0, c0; VPADDD d1, c1, c1; VPADDD d2, c2, c2; VPADDD d3, c3, c3; \
	VPXORD c0, b0, b0; VPXORD c1, b1, b1; VPXORD c2, b2, b2; VPXORD c3, b3, b3; \
	VPRORD $7, b0, b0; VPRORD $7, b1, b1; VPRORD $7, b2, b2; VPRORD $7, b3, b3

#define ROUND16(m0, m1, m2, m3, m4, m5, m6, m7, m8, m9, m10, m11, m12, m13, m14, m15) \
	HALF16(Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15, m0, m2, m4, m6, m1, m3, m5, m7); \
	HALF16(Z0, Z1, Z2, Z3, Z5, Z6, Z7, Z4, Z10, Z11, Z8, Z9, Z15, Z12, Z13, Z14, m8, m10, m12, m14, m9, m11, m13, m15)

// ROW16 gathers 16 bytes at offset o of the inputs r, r+4, r+8 and r+12, where
// x is r strides; AX is 0.
#define ROW16(o, x, dx, dz) \
	VMOVDQU o(R8)x, dx; \
	VINSERTI32X4 $1, o(R9)x, dz, dz; \
	VINSERTI32X4 $2, o(R10)x, dz, dz; \
	VINSERTI32X4 $3, o(R11)x, dz, dz

// LOAD16 makes four message words of 16 inputs.
#define LOAD16(o, p, q, r, s) \
	ROW16(o, (AX*1), X8, Z8); \
	ROW16(o, (DX*1), X9, Z9); \
	ROW16(o, (DX*2), X10, Z10); \
	ROW16(o, (R12*1), X11, Z11); \
	TURN(Z8, Z9, Z10, Z11, Z12, Z13, p, q, r, s)

// func hash16(out *Value, in *byte, stride, blocks, counter, step uint64, flags, first, last uint32)
TEXT ·hash16(SB), NOSPLIT, $0-60
	MOVQ out+0(FP), DI
	MOVQ in+8(FP), R8
	MOVQ stride+16(FP), DX
	MOVQ blocks+24(FP), CX
	MOVQ counter+32(FP), SI
	LEAQ (DX)(DX*2), R12
	LEAQ (R8)(DX*4), R9
	LEAQ (R9)(DX*4), R10
	LEAQ (R10)(DX*4), R11
	MOVQ step+40(FP), R13
	SHLQ $6, R13
	LEAQ lane<>(SB), AX
	ADDQ AX, R13
	MOVL first+52(FP), BX

	VPBROADCASTD iv<>+0(SB), Z0
	VPBROADCASTD iv<>+4(SB), Z1
	VPBROADCASTD iv<>+8(SB), Z2
	VPBROADCASTD iv<>+12(SB), Z3
	VPBROADCASTD iv<>+16(SB), Z4
	VPBROADCASTD iv<>+20(SB), Z5
	VPBROADCASTD iv<>+24(SB), Z6
	VPBROADCASTD iv<>+28(SB), Z7

block16:
	ORL  flags+48(FP), BX
	CMPQ CX, $1
	JNE  inner16
	ORL  last+56(FP), BX

inner16:
	XORL AX, AX
	LOAD16(0, Z16, Z17, Z18, Z19)
	LOAD16(16, Z20, Z21, Z22, Z23)
	LOAD16(32, Z24, Z25, Z26, Z27)
	LOAD16(48, Z28, Z29, Z30, Z31)

	VPBROADCASTD iv<>+0(SB), Z8
	VPBROADCASTD iv<>+4(SB), Z9
	VPBROADCASTD iv<>+8(SB), Z10
	VPBROADCASTD iv<>+12(SB), Z11
	VPBROADCASTD SI, Z12
	VPADDD (R13), Z12, Z12
	MOVQ SI, AX
	SHRQ $32, AX
	VPBROADCASTD AX, Z13
	MOVL $64, AX
	VPBROADCASTD AX, Z14
	VPBROADCASTD BX, Z15

	ROUND16(Z16, Z17, Z18, Z19, Z20, Z21, Z22, Z23, Z24, Z25, Z26, Z27, Z28, Z29, Z30, Z31)
	ROUND16(Z18, Z22, Z19, Z26, Z23, Z16, Z20, Z29, Z17, Z27, Z28, Z21, Z25, Z30, Z31, Z24)
	ROUND16(Z19, Z20, Z26, Z28, Z29, Z18, Z23, Z30, Z22, Z21, Z25, Z16, Z27, Z31, Z24, Z17)
	ROUND16(Z26, Z23, Z28, Z25, Z30, Z19, Z29, Z31, Z20, Z16, Z27, Z18, Z21, Z24, Z17, Z22)
	ROUND16(Z28, Z29, Z25, Z27, Z31, Z26, Z30, Z24, Z23, Z18, Z21, Z19, Z16, Z17, Z22, Z20)
	ROUND16(Z25, Z30, Z27, Z21, Z24, Z28, Z31, Z17, Z29, Z19, Z16, Z26, Z18, Z22, Z20, Z23)
	ROUND16(Z27, Z31, Z21, Z16, Z17, Z25, Z24, Z22, Z30, Z26, Z18, Z28, Z19, Z20, Z23, Z29)

	VPXORD Z8, Z0, Z0
	VPXORD Z9, Z1, Z1
	VPXORD Z10, Z2, Z2
	VPXORD Z11, Z3, Z3
	VPXORD Z12, Z4, Z4
	VPXORD Z13, Z5, Z5
	VPXORD Z14, Z6, Z6
	VPXORD Z15, Z7, Z7

	XORL BX, BX
	ADDQ $64, R8
	ADDQ $64, R9
	ADDQ $64, R10
	ADDQ $64, R11
	DECQ CX
	JNZ  block16

	TURN(Z0, Z1, Z2, Z3, Z12, Z13, Z8, Z9, Z10, Z11)
	TURN(Z4, Z5, Z6, Z7, Z12, Z13, Z16, Z17, Z18, Z19)
	VEXTRACTI32X4 $0, Z8, 0(DI)
	VEXTRACTI32X4 $0, Z16, 16(DI)
	VEXTRACTI32X4 $0, Z9, 32(DI)
	VEXTRACTI32X4 $0, Z17, 48(DI)
	VEXTRACTI32X4 $0, Z10, 64(DI)
	VEXTRACTI32X4 $0, Z18, 80(DI)
	VEXTRACTI32X4 $0, Z11, 96(DI)
	VEXTRACTI32X4 $0, Z19, 112(DI)
	VEXTRACTI32X4 $1, Z8, 128(DI)
	VEXTRACTI32X4 $1, Z16, 144(DI)
	VEXTRACTI32X4 $1, Z9, 160(DI)
	VEXTRACTI32X4 $1, Z17, 176(DI)
	VEXTRACTI32X4 $1, Z10, 192(DI)
	VEXTRACTI32X4 $1, Z18, 208(DI)
	VEXTRACTI32X4 $1, Z11, 224(DI)
	VEXTRACTI32X4 $1, Z19, 240(DI)
	VEXTRACTI32X4 $2, Z8, 256(DI)
	VEXTRACTI32X4 $2, Z16, 272(DI)
	VEXTRACTI32X4 $2, Z9, 288(DI)
	VEXTRACTI32X4 $2, Z17, 304(DI)
	VEXTRACTI32X4 $2, Z10, 320(DI)
	VEXTRACTI32X4 $2, Z18, 336(DI)
	VEXTRACTI32X4 $2, Z11, 352(DI)
	VEXTRACTI32X4 $2, Z19, 368(DI)
	VEXTRACTI32X4 $3, Z8, 384(DI)
	VEXTRACTI32X4 $3, Z16, 400(DI)
	VEXTRACTI32X4 $3, Z9, 416(DI)
	VEXTRACTI32X4 $3, Z17, 432(DI)
	VEXTRACTI32X4 $3, Z10, 448(DI)
	VEXTRACTI32X4 $3, Z18, 464(DI)
	VEXTRACTI32X4 $3, Z11, 480(DI)
	VEXTRACTI32X4 $3, Z19, 496(DI)
	VZEROUPPER
	RET

// HALF8 is HALF16 for AVX2: half as many lanes; the message words stay in
// memory, and as there is no rotation, c3 makes place for what it needs.
#define HALF8(a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3, x0, x1, x2, x3, y0, y1, y2, y3) \
	VPADDD b0, a0, a0; VPADDD b1, a1, a1; VPADDD b2, a2, a2; VPADDD b3, a3, a3; \
	VPADDD x0, a0, a0; VPADDD x1, a1, a1; VPADDD x2, a2, a2; VPADDD x3, a3, a3; \
	VPXOR a0, d0, d0; VPXOR a1, d1, d1; VPXOR a2, d2, d2; VPXOR a3, d3, d3; \
	VPSHUFB rot16<>(SB), d0, d0; VPSHUFB rot16<>(SB), d1, d1; VPSHUFB rot16<>(SB), d2, d2; VPSHUFB rot16<>(SB), d3, d3; \
	VPADDD d0, c0, c0; VPADDD d1, c1, c1; VPADDD d2, c2, c2; VPADDD d3, c3, c3; \
	VPXOR c0, b0, b0; VPXOR c1, b1, b1; VPXOR c2, b2, b2; VPXOR c3, b3, b3; \
	VMOVDQU c3, spill-32(SP); \
	VPSRLD $12, b0, c3; VPSLLD $20, b0, b0; VPOR c3, b0, b0; \
	VPSRLD $12, b1, c3; VPSLLD $20, b1, b1; VPOR c3, b1, b1; \
	VPSRLD $12, b2, c3; VPSLLD $20, b2, b2; VPOR c3, b2, b2; \
	VPSRLD $12, b3, c3; VPSLLD $20, b3, b3; VPOR c3, b3, b3; \
	VMOVDQU spill-32(SP), c3; \
	VPADDD b0, a0, a0; VPADDD b1, a1, a1; VPADDD b2, a2, a2; VPADDD b3, a3, a3; \
	VPADDD y0, a0, a0; VPADDD y1, a1, a1; VPADDD y2, a2, a2; VPADDD y3, a3, a3; \
	VPXOR a0, d0, d0; VPXOR a1, d1, d1; VPXOR a2, d2, d2; VPXOR a3, d3, d3; \
	VPSHUFB rot8<>(SB), d0, d0; VPSHUFB rot8<>(SB), d1, d1; VPSHUFB rot8<>(SB), d2, d2; VPSHUFB rot8<>(SB), d3, d3; \
	VPADDD d0, c0, c0; VPADDD d1, c1, c1; VPADDD d2, c2, c2; VPADDD d3, c3, c3; \
	VPXOR c0, b0, b0; VPXOR c1, b1, b1; VPXOR c2, b2, b2; VPXOR c3, b3, b3; \
	VMOVDQU c3, spill-32(SP); \
	VPSRLD $7, b0, c3; VPSLLD $25, b0, b0; VPOR c3, b0, b0; \
	VPSRLD $7, b1, c3; VPSLLD $25, b1, b1; VPOR c3, b1, b1; \
	VPSRLD $7, b2, c3; VPSLLD $25, b2, b2; VPOR c3, b2, b2; \
	VPSRLD $7, b3, c3; VPSLLD $25, b3, b3; VPOR c3, b3, b3; \
	VMOVDQU spill-32(SP), c3

#define ROUND8(m0, m1, m2, m3, m4, m5, m6, m7, m8, m9, m10, m11, m12, m13, m14, m15) \
	HALF8(Y0, Y1, Y2, Y3, Y4, Y5, Y6, Y7, Y8, Y9, Y10, Y11, Y12, Y13, Y14, Y15, m0, m2, m4, m6, m1, m3, m5, m7); \
	HALF8(Y0, Y1, Y2, Y3, Y5, Y6, Y7, Y4, Y10, Y11, Y8, Y9, Y15, Y12, Y13, Y14, m8, m10, m12, m14, m9, m11, m13, m15)

// ROW8 gathers 16 bytes at offset o of the inputs r and r+4.
#define ROW8(o, x, dx, dy) \
	VMOVDQU o(R8)x, dx; \
	VINSERTI128 $1, o(R9)x, dy, dy

// LOAD8 makes four message words of 8 inputs, and leaves them at R10.
#define LOAD8(o) \
	ROW8(o, (AX*1), X8, Y8); \
	ROW8(o, (DX*1), X9, Y9); \
	ROW8(o, (DX*2), X10, Y10); \
	ROW8(o, (R12*1), X11, Y11); \
	TURN(Y8, Y9, Y10, Y11, Y12, Y13, Y14, Y15, Y8, Y9); \
	VMOVDQU Y14, (8*o+0)(R10); \
	VMOVDQU Y15, (8*o+32)(R10); \
	VMOVDQU Y8, (8*o+64)(R10); \
	VMOVDQU Y9, (8*o+96)(R10)

// func hash8(out *Value, in *byte, stride, blocks, counter, step uint64, flags, first, last uint32)
TEXT ·hash8(SB), 0, $544-60
	MOVQ out+0(FP), DI
	MOVQ in+8(FP), R8
	MOVQ stride+16(FP), DX
	MOVQ blocks+24(FP), CX
	MOVQ counter+32(FP), SI
	LEAQ (DX)(DX*2), R12
	LEAQ (R8)(DX*4), R9
	LEAQ words-544(SP), R10
	MOVQ step+40(FP), R13
	SHLQ $6, R13
	LEAQ lane<>(SB), AX
	ADDQ AX, R13
	MOVL first+52(FP), BX

	VPBROADCASTD iv<>+0(SB), Y0
	VPBROADCASTD iv<>+4(SB), Y1
	VPBROADCASTD iv<>+8(SB), Y2
	VPBROADCASTD iv<>+12(SB), Y3
	VPBROADCASTD iv<>+16(SB), Y4
	VPBROADCASTD iv<>+20(SB), Y5
	VPBROADCASTD iv<>+24(SB), Y6
	VPBROADCASTD iv<>+28(SB), Y7

block8:
	ORL  flags+48(FP), BX
	CMPQ CX, $1
	JNE  inner8
	ORL  last+56(FP), BX

inner8:
	XORL AX, AX
	LOAD8(0)
	LOAD8(16)
	LOAD8(32)
	LOAD8(48)

	VPBROADCASTD iv<>+0(SB), Y8
	VPBROADCASTD iv<>+4(SB), Y9
	VPBROADCASTD iv<>+8(SB), Y10
	VPBROADCASTD iv<>+12(SB), Y11
	VMOVQ SI, X12
	VPBROADCASTD X12, Y12
	VPADDD (R13), Y12, Y12
	MOVQ SI, AX
	SHRQ $32, AX
	VMOVQ AX, X13
	VPBROADCASTD X13, Y13
	MOVL $64, AX
	VMOVQ AX, X14
	VPBROADCASTD X14, Y14
	VMOVQ BX, X15
	VPBROADCASTD X15, Y15

	ROUND8(0(R10), 32(R10), 64(R10), 96(R10), 128(R10), 160(R10), 192(R10), 224(R10), 256(R10), 288(R10), 320(R10), 352(R10), 384(R10), 416(R10), 448(R10), 480(R10))
	ROUND8(64(R10), 192(R10), 96(R10), 320(R10), 224(R10), 0(R10), 128(R10), 416(R10), 32(R10), 352(R10), 384(R10), 160(R10), 288(R10), 448(R10), 480(R10), 256(R10))
	ROUND8(96(R10), 128(R10), 320(R10), 384(R10), 416(R10), 64(R10), 224(R10), 448(R10), 192(R10), 160(R10), 288(R10), 0(R10), 352(R10), 480(R10), 256(R10), 32(R10))
	ROUND8(320(R10), 224(R10), 384(R10), 288(R10), 448(R10), 96(R10), 416(R10), 480(R10), 128(R10), 0(R10), 352(R10), 64(R10), 160(R10), 256(R10), 32(R10), 192(R10))
	ROUND8(384(R10), 416(R10), 288(R10), 352(R10), 480(R10), 320(R10), 448(R10), 256(R10), 224(R10), 64(R10), 160(R10), 96(R10), 0(R10), 32(R10), 192(R10), 128(R10))
	ROUND8(288(R10), 448(R10), 352(R10), 160(R10), 256(R10), 384(R10), 480(R10), 32(R10), 416(R10), 96(R10), 0(R10), 320(R10), 64(R10), 192(R10), 128(R10), 224(R10))
	ROUND8(352(R10), 480(R10), 160(R10), 0(R10), 32(R10), 288(R10), 256(R10), 192(R10), 448(R10), 320(R10), 64(R10), 384(R10), 96(R10), 128(R10), 224(R10), 416(R10))

	VPXOR Y8, Y0, Y0
	VPXOR Y9, Y1, Y1
	VPXOR Y10, Y2, Y2
	VPXOR Y11, Y3, Y3
	VPXOR Y12, Y4, Y4
	VPXOR Y13, Y5, Y5
	VPXOR Y14, Y6, Y6
	VPXOR Y15, Y7, Y7

	XORL BX, BX
	ADDQ $64, R8
	ADDQ $64, R9
	DECQ CX
	JNZ  block8

	TURN(Y0, Y1, Y2, Y3, Y12, Y13, Y8, Y9, Y10, Y11)
	TURN(Y4, Y5, Y6, Y7, Y0, Y1, Y12, Y13, Y14, Y15)
	VEXTRACTI128 $0, Y8, 0(DI)
	VEXTRACTI128 $0, Y12, 16(DI)
	VEXTRACTI128 $0, Y9, 32(DI)
	VEXTRACTI128 $0, Y13, 48(DI)
	VEXTRACTI128 $0, Y10, 64(DI)
	VEXTRACTI128 $0, Y14, 80(DI)
	VEXTRACTI128 $0, Y11, 96(DI)
	VEXTRACTI128 $0, Y15, 112(DI)
	VEXTRACTI128 $1, Y8, 128(DI)
	VEXTRACTI128 $1, Y12, 144(DI)
	VEXTRACTI128 $1, Y9, 160(DI)
	VEXTRACTI128 $1, Y13, 176(DI)
	VEXTRACTI128 $1, Y10, 192(DI)
	VEXTRACTI128 $1, Y14, 208(DI)
	VEXTRACTI128 $1, Y11, 224(DI)
	VEXTRACTI128 $1, Y15, 240(DI)
	VZEROUPPER
	RET

// func cpuid(leaf uint32) (ebx, ecx uint32)
TEXT ·cpuid(SB), NOSPLIT, $0-16
	MOVL leaf+0(FP), AX
	XORL CX, CX
	CPUID
	MOVL BX, ebx+8(FP)
	MOVL CX, ecx+12(FP)
	RET

// func xgetbv() uint32
TEXT ·xgetbv(SB), NOSPLIT, $0-4
	XORL CX, CX
	XGETBV
	MOVL AX, ret+0(FP)
	RET
