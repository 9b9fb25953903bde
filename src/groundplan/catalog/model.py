"""What a workspace declares: the kinds by the name they have in YAML, and their models in one place.

Each model is in the file of its subject. Fields hold plain numbers (milliseconds, picodollars, bytes, fractions).
Reading files is `loader`, rules between documents are `check`; nothing here knows prices or where anything runs.
"""

from __future__ import annotations

from groundplan.catalog.allocation import AllocationDoc as AllocationDoc
from groundplan.catalog.base import Strict as Strict
from groundplan.catalog.cache import CacheRule as CacheRule
from groundplan.catalog.company import CompanyDoc as CompanyDoc
from groundplan.catalog.data import IntegrationDoc as IntegrationDoc
from groundplan.catalog.data import PromptDoc as PromptDoc
from groundplan.catalog.data import SourceDoc as SourceDoc
from groundplan.catalog.frameworks import FrameworkDoc as FrameworkDoc
from groundplan.catalog.governed import TermDoc as TermDoc
from groundplan.catalog.guardrails import GuardrailRule as GuardrailRule
from groundplan.catalog.levels import EVERYONE as EVERYONE
from groundplan.catalog.levels import PUBLIC as PUBLIC
from groundplan.catalog.levels import SERVED_STAGES as SERVED_STAGES
from groundplan.catalog.levels import sensitivity_rank as sensitivity_rank
from groundplan.catalog.money import BudgetDoc as BudgetDoc
from groundplan.catalog.money import ClassPrice as ClassPrice
from groundplan.catalog.money import LimitDoc as LimitDoc
from groundplan.catalog.money import Price as Price
from groundplan.catalog.money import price_on as price_on
from groundplan.catalog.people import DUTIES as DUTIES
from groundplan.catalog.people import GrantDoc as GrantDoc
from groundplan.catalog.people import GroupDoc as GroupDoc
from groundplan.catalog.people import Owners as Owners
from groundplan.catalog.people import PersonDoc as PersonDoc
from groundplan.catalog.people import TeamDoc as TeamDoc
from groundplan.catalog.places import DeploymentDoc as DeploymentDoc
from groundplan.catalog.places import ModelDoc as ModelDoc
from groundplan.catalog.places import SiteDoc as SiteDoc
from groundplan.catalog.policies import PolicyDoc as PolicyDoc
from groundplan.catalog.retention import KeepRule as KeepRule
from groundplan.catalog.tools import ToolDoc as ToolDoc
from groundplan.catalog.workload import GroundingRule as GroundingRule
from groundplan.catalog.workload import ReviewRule as ReviewRule
from groundplan.catalog.workload import WorkflowDoc as WorkflowDoc
from groundplan.catalog.workload import WorkloadDoc as WorkloadDoc

KINDS: dict[str, type[Strict]] = {
    "company": CompanyDoc,
    "person": PersonDoc,
    "group": GroupDoc,
    "team": TeamDoc,
    "site": SiteDoc,
    "deployment": DeploymentDoc,
    "model": ModelDoc,
    "source": SourceDoc,
    "term": TermDoc,
    "prompt": PromptDoc,
    "integration": IntegrationDoc,
    "workflow": WorkflowDoc,
    "workload": WorkloadDoc,
    "budget": BudgetDoc,
    "limit": LimitDoc,
    "allocation": AllocationDoc,
    "grant": GrantDoc,
    "policy": PolicyDoc,
    "tool": ToolDoc,
    "framework": FrameworkDoc,
}
