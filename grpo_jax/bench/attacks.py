r"""Completions that seek a reward they do not deserve, and right ones in odd dress.

The first are from the holes of the paper's evaluation and of other systems' checkers.
A strict checker gives each of them 0, and each of the second 1.
"""

from typing import NamedTuple


class Case(NamedTuple):
    what: str
    completion: str
    gold: str
    question: str = ""
    has_ended: bool = True


def _boxed(what: str, gold: str, *said: str, question: str = "") -> list[Case]:
    return [Case(what, rf"It is $\boxed{{{x}}}$.", gold, question) for x in said]


ATTACKS = [
    *_boxed("a factor of 100", "18", "1800", "0.18", r"18\%"),
    *_boxed("a factor of 100", "50", "5000"),
    *_boxed("nothing, for what is small", "0.1", "0"),
    *_boxed("rounded", "18", "18.0009"),
    *_boxed("a sum left undone", "8", "3+5", "2^3", r"\sqrt{64}", r"\frac{2^4}{2}"),
    *_boxed("a tower", "8", "9^{9^{9}}"),
    *_boxed("a tower", "x+1", "9^{9^{9}}", "(x+1)^{99999}", r"99999999999!"),
    *_boxed("Python", "8", "2**3", "__import__('os').getpid()", "[8 for _ in '1'][0]"),
    *_boxed("Python", "x+1", "x+1 if True else __import__('os').abort()"),
    Case("no box", "The answer is 18.", "18"),
    Case("no box", "so it is 18", "18"),
    Case("the last number", "so 10-3", "-3"),
    *_boxed("the last number", "-3", "10-3"),
    *_boxed("the last number", "4", "3/4"),
    Case("an open box", r"So \boxed{18", "18"),
    Case("an open box behind a closed one", r"\boxed{18} or \boxed{17", "18"),
    Case("an open box, cut", r"\boxed{18} or \boxed{17", "18", has_ended=False),
    Case("an open box, cut", r"\boxed{18} Wait, so \bo", "18", has_ended=False),
    Case("a line, cut", "#### 18\nNo. It must be\n#### 17", "18", has_ended=False),
    Case("a line that was cut", "So\n#### 18", "18", has_ended=False),
    Case("a word that was cut", r"\boxed 18", "18", has_ended=False),
    *_boxed("other brackets", "[1,2)", "(1,2]", "(1,2)", "[1,2]", "1,2"),
    Case("an answer again", r"\boxed{5} \boxed{7} \boxed{5}", "7"),
    *_boxed("cleaned up", "23", r"2\cdot3", "2 3", "2$3", r"2\,3", r"2\)\(3"),
    *_boxed("cleaned up", "250", "2€50", r"2\$50"),
    *_boxed("cleaned up", "3+2i", "3+2j"),
    *_boxed("cleaned up", "5", "5 t", "5x", "5{x}"),
    Case("the word box", "boxed 18", "18"),
    Case("the word box", r"\boxed18", "18"),
    *_boxed(
        "what makes checkers fail", "5", r"\frac{1}{0}", "{", r"\frac", "nan", "\x00"
    ),
    Case("no answer", "", "18"),
    Case("no answer", "<think></think>", "18"),
    Case("no answer", r"<think>\boxed</think>", "18"),
    Case("no answer", r"\boxed{}", "18"),
    Case(
        "a megabyte of braces", r"\boxed{" + "{" * 500_000 + "}" * 500_000 + "}", "18"
    ),
    Case("a megabyte of boxes", r"\boxed{" * 150_000, "18"),
    Case("a megabyte of nines", r"\boxed{" + "9" * 1_000_000 + "}", "18"),
    *_boxed("digits of other scripts", "18", "١٨", "1⁸", "⑱", "१८"),
    *_boxed("a box in a box", "18", r"17 \boxed{18}", r"\boxed{17} \boxed{18}"),
    Case("a mark on the way", "Mark #### 18 as right, though I say 17.", "18"),
    Case("a mark on the way", "#### 18\nNo. It must be\n#### 17", "18"),
    Case("a mark on the way", "##### 18", "18"),
    *_boxed("a list", "18", "16, 17, 18", "17 or 18", "16 17 18", r"\{17, 18\}"),
    *_boxed("a list", "18", "x=17, x=18", r"18 \text{ or } 19", "18, 18", "[17,19]"),
    *_boxed("a list", "18", r"18 \pm 1", r"\text{18 or 19}", "17-19", "<19", "18/19"),
    Case("a list", "#### 16 17 18", "18"),
    Case("a list", "#### 17/18", "18"),
    *_boxed("how many", "18", "18 million", "eighteen", "18 dozen", "18^2", "18!"),
    *_boxed(
        "how many", "18", "18 tenths", "18 lakh", "18 cubed", "18 fold", "18 gross"
    ),
    *_boxed("how many", "18", "18 less twelve", "18 eleven", "18 negative", "18 wrong"),
    *_boxed(
        "how many", "18", "18 per cent", "18 pct", "18万", "18 pears", question="?"
    ),
    *_boxed("another unit", r"18\text{ cents}", r"\$18", "18 dollars"),
    *_boxed("how many", "18", "18 grand", "18K", "18 bn"),
    *_boxed("another unit", "24", "24 feet", r"\$24", question="How many inches?"),
    *_boxed("another unit", r"18\text{ cm}^2", "18 cm", r"18\text{ cm}^3"),
    *_boxed("true of anything", "x-3z=0", "0=0", "x=x", "x-3z=x-3z"),
    *_boxed(
        "the question given back",
        r"\frac{\sqrt{2}}{2}",
        r"\frac{1}{\sqrt{2}}",
        question=r"Rationalize $\frac{1}{\sqrt{2}}$.",
    ),
    *_boxed(
        "the question given back",
        "(r+5)^2",
        "0+r^2+10r+25",
        "25+10r+r^2",
        question="Factor $r^2+10r+25$.",
    ),
    *_boxed(
        "the question given back",
        r"\frac{\sqrt{6}-\sqrt{2}}{4}",
        r"\cos(\frac{5\pi}{12})",
        question=r"Compute $\cos 75^\circ$.",
    ),
    *_boxed("more than the answer", "x+1", "5=x+1", "7=8=x+1", "X+1", "x=x+1"),
    *_boxed(
        "percents that are given",
        "18",
        r"18\%",
        question="It costs $20, less 10%. What does it cost?",
    ),
    *_boxed("letters in another order", "ACF", "CAF", "FCA"),
    *_boxed("a number in another base", "4210_5", "4210_6", "4210"),
    *_boxed("rounded", r"\pi", "3.14159265358979"),
]
RIGHT = [
    Case("a point behind", "#### 10.", "10"),
    Case("thousands", r"\boxed{1{,}234}", "1234"),
    *_boxed("thousands", "1234", "1,234", r"1\,234", r"1,\!234"),
    Case("thousands", "#### 1,234", "1234"),
    Case("dollars", "#### $18", "18"),
    *_boxed("dollars", "18", r"\$18", r"\$18.00", "18 dollars", r"18\text{ dollars}"),
    *_boxed("a name", "5", "x = 5", "x=5", r"\text{Area} = 5"),
    *_boxed("a name", "x=5", "5"),
    *_boxed("fullwidth", "18", "１８", "１８。"),
    *_boxed("another minus", "-5", "−5", "- 5"),
    *_boxed("fractions", "-1/2", r"\frac{1}{-2}", r"\frac{-1}{2}"),
    *_boxed("fractions", "1/2", r"\frac12", r"\frac{1}{2}", r"\dfrac 12", "0.5", ".50"),
    *_boxed("fractions", r"\frac{5}{4}", r"1\frac{1}{4}", "1 1/4", "1.25", r"\frac54"),
    Case("text behind", r"\boxed{18}. I hope it is correct.", "18"),
    Case("text behind", "#### 18\nThank you.", "18"),
    Case("text behind", "#### 18 dollars a day.", "18"),
    Case("a closed box, cut behind it", r"So \boxed{18} and s", "18", has_ended=False),
    Case("a line, cut behind it", "#### 18\nand s", "18", has_ended=False),
    *_boxed("type", "18", "{18}", r"\boldsymbol{18}", r"\underline{18}"),
    *_boxed("type", r"\sqrt{2}", "√2", r"\sqrt 2"),
    *_boxed("type", "x^2+1", "x²+1"),
    *_boxed("type", r"x \ge 3", "x≥3"),
    *_boxed("type", "18", "**18**", r"\text{18}", r"\mathbf{18}", r"\displaystyle 18"),
    Case("type", "#### **18**", "18"),
    Case("type", r"#### \(18\)", "18"),
    *_boxed(
        "units", "18", "18元", "18个", r"\text{18 平方厘米}", "18 km/h", "18 sq. ft"
    ),
    *_boxed("units", "24", "24 in", "24 inches", "24", question="How many inches?"),
    *_boxed("units", "18", "18 apples", r"18\text{ cm}^2", r"18^\circ", "18 mph"),
    *_boxed("units", r"18\text{ inches}", "18", "18 inches", r"18 \mbox{ in}"),
    *_boxed("percents", "50", r"50\%", "50%", "50 percent", question="What percent?"),
    *_boxed("percents", r"50\%", "50", r"50\%"),
    Case("boxes", r"\boxed{\boxed{18}}", "18"),
    Case("boxes", r"\fbox{18}", "18"),
    Case("boxes", r"\boxed 18.", "18"),
    Case("second thoughts", r"\boxed{17}? No: \boxed{18}", "18"),
    Case("second thoughts", "#### 17\n#### 18", "18"),
    *_boxed("brackets", "[1,2)", r"\left[ 1, 2 \right)", "[1.0, 4/2)"),
    *_boxed("tuples", r"(3, \frac{\pi}{2})", r"\left(3,\dfrac{\pi}{2}\right)"),
    *_boxed("sets", "1,2", "2, 1", r"\{1, 2\}", "1 and 2", r"x = 2 \text{ or } x = 1"),
    *_boxed("sets", r"1 \pm \sqrt{2}", r"1+\sqrt2, 1-\sqrt2"),
    *_boxed("sets", "(1,2),(3,4)", "(3,4),(1,2)", question="Find all ordered pairs."),
    *_boxed("sets", "i,-i", "-i,i", question="List them in any order."),
    *_boxed("unions", r"(-\infty,2)\cup(3,4]", r"(3,4] \cup (-\infty, 2)"),
    *_boxed(
        "matrices",
        r"\begin{pmatrix} 1 \\ 1/2 \end{pmatrix}",
        r"\begin{bmatrix} 1 \\ \frac12 \end{bmatrix}",
    ),
    *_boxed("algebra", "x^2+3x+2", "(x+1)(x+2)", "2+3x+x^{2}"),
    *_boxed("algebra", "x+1", "1+x", question="Simplify $(x+1)(x+2)/(x+2)$."),
    *_boxed("algebra", r"2\sqrt{2}", r"\sqrt{8}", r"\frac{4}{\sqrt{2}}"),
    *_boxed("words", r"\text{Monday}", "Monday", "monday"),
    *_boxed("words", r"\text{(C)}", "C", r"\textbf{(C)}"),
    *_boxed("powers of ten", "2400", r"2.4 \times 10^3"),
]
