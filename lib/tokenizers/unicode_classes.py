# SPDX-License-Identifier: Apache-2.0
"""The classes of Unicode 16 that pretokenizers distinguish, the same under every Python.

The table is data of the Unicode Character Database (general categories and White_Space), packed:
for each run of code points of one class, the class and the four bytes of the run's length.
"""

import base64
import functools
import zlib

import numpy as np

# Upper is Lu and Lt, lower Ll, uncased Lm and Lo, mark M, number N, space White_Space; other is all
# that is left, such as punctuation. Some ASCII characters have classes of their own; END is no
# character but the end of a text.
OTHER, UPPER, LOWER, UNCASED, MARK, NUMBER, SPACE, NEWLINE, BLANK, QUOTE, SLASH, END = range(12)


@functools.cache
def table() -> np.ndarray:
  """The class of each code point, uint8 [0x110000]."""
  packed = np.frombuffer(zlib.decompress(base64.b85decode(''.join(PACKED.split()))), np.uint8)
  classes, lengths = packed.reshape(5, -1)[0], packed.reshape(5, -1)[1:].astype(np.int64)
  found = np.repeat(classes, lengths.T @ (1 << 8 * np.arange(4)))
  for characters, kind in (('\r\n', NEWLINE), (' ', BLANK), ("'", QUOTE), ('/', SLASH)):
    found[[ord(character) for character in characters]] = kind
  return found


PACKED = """
c-rk)O>A6A5q?!&)!nb>&AgfMc*Y*b<FVs7acswv{|%tUXxX4Bt0j9NQaB(G0tq%+mJ64??PV`;;{-Q^_RMu}2*GmYLJmkE1
VUUn?g>%d{ob1y$4Q)QoDJ}*=l%6hRdxM*)pnv2op1sPCjL#yJ0`3`7hr<$k~bB8pOI`-N!ciLc#|pgri%^3_1KmiS6USDvN
zeak_e)z1>+=&ST1>&u5fWMn}7G+9LB=D*!;x8uyIMz&C`LIVYx?16hl{4l4mB)X~c2e5u6G($s@<7GdLlYJlx7jehwYEI<7
yomxuXNvAo)&STT;wsa7uI!hXf-X(L7DOs<~As)9kecX3SRgV>mgVD^!H)OP2$?gfOoiPFK)VKY;QmM_r&B9jkk7+e?|7wf_
-E)`XAomaKmt1OAJ2gx*A5}%-`{wvbv#FDXkP9dp6b$LpE`GD%FixzV!8XjhNO<MrL1Y@a47?6|Ljs)r#v0=H1!$TFr7=}kB
sSiQzx5iY&=v+o|aW7jn!YX;n5)rcM@iSCV;`tV)L*L0Wc_4bV{Pf%K=~N(bfkSGFa>Qkt2M`KCQl@_iNwd(BsALxCRVW-DW
3XaB?Z-sXqcEp{^b&WDY+T??SP`R|)eHjrke%gGMfgl0J%Y0;i;jPpKDk2esAM6uLif3)5KdhI6qUy?g)=Z;m@#TwSv{DrEM
uIM)lpS0h*GO~jwnA{7Ak{0Tmnnnot<4)3@QqB;drW`dW!R0jPtbU2!tRXVmA{P3009&aGG&VIbp7{SL&3JQkc6aoW)_I$nY
wu)zk{a6?>jmrfI%&p)pMh@k6JIqe~ziYEw)M*)(%LOv((a0Cg5y=aGDh({ndGBrqWI+;JzyLutntNL<wVX&8G4(Jbom6ZiV
$b~G1CQtm?T%uo*<3?T)B01Esy0J8)Zo{jJc-^W?5FuW;WM?eKAEylvnYl&W4imrL0L_ayKdPWk{cotNCzYZ&1%35sXz4Pu=
u87c45JCsi(}HJ@lFEf*mnX-O{~TO_aMHAepttQ_kR{UW3ejqVcNU$v>D%6jT8v2O#Gh?|(F)#cK+CPC!OPeui9rS2T~^fKC
D1lKzXa>o6m-EjL<emJ77_d29NzW95v8J9;VGelGDnBFQJ^VK3*jMsEZ^b@BMuZ+3K}ZNic{F@Dqo^jE(~2NKAcL5<3W;9g&
^^=T%d&|#ZZ-!sZ=INue>rETFoZgkV$R7THeU`wW5uzw|)Z<$6e$fXXr4&iO`I^g4-BJKq`_E$qPZXu38fH0ga4ExPjHO_2x
u6*jR99F@)EW+=Wvr02(65A&p^xx)+^AXkn9jGTMO66mIPFz-dk7?I0U%X0n=a%X7jVQTLXtFk#)cT<g_W4maff8mhFX+U>i
j)qU*1kZ&txO_$OI)#zf@6tywCGWL4`blP<!FPy$-7&k=3O}8dH&YT;GI=eK~jWYwLs}5FCX1ONVwTrypvC4JQOpTi8c3atI
&pM^trfd;-2bF}!B8h>-zr6d!CTyHJfR~Zdlb2w%gpw5s&$8RvR_L^rLr_Stq8xY-i7a#YXspV>zE4loET(T>UhhBvVGN~#b
rC)OM?P2?NIou$3m$yo&Hj%@_a~DAzvDE?22>|+R1AtKZ`~qjUonuwAT==G#{2LGpQFpEmduk1b2os<*MWEkzM;sCC+)EtS;
)ukY<}?TgP**10h_Aru=kWI5x6Jlj5i&gN#}w2)7r`&!g_oxV=n5@tk&>QO<h!ec|;<~OHkTf$?#IwIo;LD&v&OR4w~7jqWx
A&;znY}F>JTe0HjV21XeEjxIm9~u%xizjqiMX>foat5X94WPFwKvf0+&FBE5s(-!d7q2eM|+)N6Ks{q61nUOSgjyWKuu_+TL
%VjA~U;D+jSCg+(2@NnMRcrV+_ZglX6@cyd0n8ON<DeZ}sc#C<2n<Q`N&z*ZyWNy+XowHZ6hQy7>{o<*vWY^Qavr8JzL;AWe
F}vXpxdGY%nl+nFL>6;j)9~gil1**A;L(mHFO&e7lDak!99vam3#X8{ea-dJF0kzm%$-};FE=k6k!=O%bYICP`+r&!Nn)M0x
=yPOY`;Nr+&I5zdV^G5%^M?M(^A@N7-%jVr`4vI+$X7(0|%sP(jt-V%M?(r(S_wqKoMRIcrAN!W<O)6X|}}46-u11UCbyIfE
z9Z&sG4eaQN{KXyWSCF0qJHqe;(KPWR!y!E`{lF%eL2xUHS06j|LnwSqZiWIo!>zcU^$WLA79&IPffAddHC=5AU%YeFG`6>#
Sah&wDaE(nx&Z~cBfcRGbLzAIl9XZ4|V%WJz8W6pTt+HY;lVGqV#TOglKg8j0Arh~6RzPR(V@BX0k+c&<IPuie!_jCTrN29L
$_=Z`NIQ^<zzUE9!D&<F5F7m>!_LTd0JRW@SwrF|XQ1iftYy(@L*azG0pA;;1Iv0l`w8;LL-sYxCjT~#<a{2-eMy#~8Xh!r?
^<FRQ-CzD-I2;=24u|0+ihlc+LQ!rEhZst+0srDntmJiuPT?{vgFfme+%6^8>5_#O^cnIy4tiSu(Le`-Q~A|(cy~`3gW|3)j
i9qj?!hU!Mv}1qFag(d_#LKZdt*aB-Qe>+#oyS2{5K>HiN|dhkG;A){i>pW24K+Jgu(;|9jPP?oi8{4?(|>BpVNQA_gfe9cY
ZPY+im{loqx5Hnrf=4rehHtdnVS#`oAO$7yU1VastcA-KSeo)AOJme_Mx7@4y!wFg3k&nXUZIB?U6&2@d6<@#(!i@GLeCPlB
|1Z5J5$f<d<=I)-WBal2H{RWX;)hl&3yqo1rMm?AGE?LQ~~uA{W3nrf=4rkZN1sivB0I!SW%KP79bsivB0s;Q=$YO1NG6Q}<
GhHaP*
"""
