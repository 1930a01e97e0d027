"""An energy budget through a gateway: spending beyond it raises the price, and the weights show."""

from gateway.config import GatewayConfig
from gateway.deciding_config import EnergyBudgetConfig
from tests.integration import harness
from tests.integration.harness import CALM, CHAT, UNTAUGHT, model, until


async def test_spending_beyond_the_budget_raises_the_weight_of_energy(world):
    small = await world.simulator()
    config = GatewayConfig(
        models=(model("phi-3-mini", small),), health=CALM, learning=UNTAUGHT,
        energy_budget=EnergyBudgetConfig(1.0),
    )  # fmt: skip
    async with harness.serve(config) as gate:
        before = (await gate.ask(CHAT, path="/v1/route")).json["weights"]["energy"]
        assert before == 0.3
        assert (await gate.ask(CHAT)).status == 200

        async def is_dear():
            return await gate.metric("joulegate_energy_price_weight") > 0.0

        await until(is_dear, "a price")
        assert (await gate.ask(CHAT, path="/v1/route")).json["weights"]["energy"] > before
