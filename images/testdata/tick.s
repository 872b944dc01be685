# Counts in its memory every 10 ms, and writes the count to its descriptor 0.
	.globl _start
	.text
_start:
	mov $1, %eax		# write(1, "begin\n")
	mov $1, %edi
	lea hello(%rip), %rsi
	mov $6, %edx
	syscall
1:	mov $35, %eax		# nanosleep(&span, NULL)
	lea span(%rip), %rdi
	xor %esi, %esi
	syscall
	incq count(%rip)
	mov $18, %eax		# pwrite64(0, &count, 8, 0)
	xor %edi, %edi
	lea count(%rip), %rsi
	mov $8, %edx
	xor %r10d, %r10d
	syscall
	jmp 1b
	.data
span:	.quad 0, 10000000
count:	.quad 0
hello:	.ascii "begin\n"
